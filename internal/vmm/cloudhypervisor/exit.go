package cloudhypervisor

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

const displayName = "Cloud Hypervisor"

// ending is what is known about a process that has ended.
type ending struct {
	killed   bool                // Machine.Kill was called
	rebooted bool                // the VM began to start again, for which the process was ended
	orderly  bool                // the VMM said that it ends
	status   *syscall.WaitStatus // nil for a process that was not our child
	console  string              // last of what the guest wrote to its console
	stderr   string              // last of what the VMM wrote
}

// exit classifies an ending. A guest can write what it likes to its console; what
// it says is believed only where the VMM reports that the guest itself ended.
func (e *ending) exit() vmm.Exit {
	switch {
	case e.killed:
		return vmm.Exit{Reason: vmm.Killed}
	case e.rebooted:
		return e.reset()
	case e.orderly:
		return vmm.Exit{Reason: vmm.PoweredOff}
	case e.status == nil:
		if d := host.PanicLine(e.console); d != "" {
			return vmm.Exit{Reason: vmm.Panicked, Detail: d}
		}
		return vmm.Exit{Reason: vmm.Died, Detail: host.WithWords(displayName+"'s process is gone", e.stderr)}
	case e.status.Signaled():
		return vmm.Exit{Reason: vmm.Died, Detail: host.SignalDetail(displayName, e.status.Signal())}
	case e.status.ExitStatus() != 0:
		return vmm.Exit{Reason: vmm.Died, Detail: host.WithWords(fmt.Sprintf("%s ended with status %d", displayName, e.status.ExitStatus()), e.stderr)}
	}
	return vmm.Exit{Reason: vmm.PoweredOff}
}

// reset is the end of a guest whose machine was reset: by a panic, by reboot(2),
// or by a triple fault, of which the kernel can say nothing.
func (e *ending) reset() vmm.Exit {
	if d := host.PanicLine(e.console); d != "" {
		return vmm.Exit{Reason: vmm.Panicked, Detail: d}
	}
	if strings.Contains(e.console, "reboot: Restarting system") {
		return vmm.Exit{Reason: vmm.PoweredOff, Detail: "the guest rebooted"}
	}
	return vmm.Exit{Reason: vmm.Panicked, Detail: "the guest reset without a word"}
}
