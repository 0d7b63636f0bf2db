package qemu

import (
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestExit(t *testing.T) {
	const panicked = "[    1.0] Kernel panic - not syncing: Attempted to kill init!\x1b[0m exitcode=0x7f00\r\nmore\n"
	const rebooted = "[    1.0] reboot: Restarting system\n"
	status := func(s syscall.WaitStatus) *syscall.WaitStatus { return &s }
	for name, test := range map[string]struct {
		ending ending
		want   vmm.Exit
	}{
		"killed":                  {ending{killed: true, status: status(9), console: panicked}, vmm.Exit{Reason: vmm.Killed}},
		"power off":               {ending{shutdown: "guest-shutdown", status: status(0)}, vmm.Exit{Reason: vmm.PoweredOff}},
		"power off after a lie":   {ending{shutdown: "guest-shutdown", console: panicked}, vmm.Exit{Reason: vmm.PoweredOff}},
		"panic":                   {ending{shutdown: "guest-reset", status: status(0), console: panicked}, vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: Attempted to kill init![0m exitcode=0x7f00"}},
		"reboot":                  {ending{shutdown: "guest-reset", console: rebooted}, vmm.Exit{Reason: vmm.PoweredOff, Detail: "the guest rebooted"}},
		"triple fault":            {ending{shutdown: "guest-reset"}, vmm.Exit{Reason: vmm.Panicked, Detail: "the guest reset without a word"}},
		"terminated":              {ending{shutdown: "host-signal", status: status(0)}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU was told to end from outside (host-signal)"}},
		"killed from outside":     {ending{status: status(9)}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU was ended by signal 9 (killed); the host may be out of memory"}},
		"crash":                   {ending{status: status(11), console: panicked}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU was ended by signal 11 (segmentation fault)"}},
		"error":                   {ending{status: status(1 << 8), stderr: "qemu-system-x86_64: warning\n\nqemu-system-x86_64: bad disk\n"}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU ended with status 1: warning; bad disk"}},
		"silent error":            {ending{status: status(1 << 8)}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU ended with status 1"}},
		"status without an event": {ending{status: status(0)}, vmm.Exit{Reason: vmm.PoweredOff}},
		"panic without an event":  {ending{console: panicked}, vmm.Exit{Reason: vmm.Panicked, Detail: "Kernel panic - not syncing: Attempted to kill init![0m exitcode=0x7f00"}},
		"adopted, power off":      {ending{console: "reboot: Power down\n"}, vmm.Exit{Reason: vmm.PoweredOff}},
		"adopted, gone":           {ending{stderr: "last\nwords\n"}, vmm.Exit{Reason: vmm.Died, Detail: "QEMU's process is gone: last; words"}},
	} {
		if got := test.ending.exit(); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
