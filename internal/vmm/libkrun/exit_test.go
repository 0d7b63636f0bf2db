package libkrun

import (
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

func TestExit(t *testing.T) {
	status := func(raw int) *syscall.WaitStatus { s := syscall.WaitStatus(raw); return &s }
	const (
		panicking = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\nmore"
		aborted   = "\nthread '<unnamed>' (7) panicked at src/vmm/src/linux/vstate.rs:447:30:\nError creating the Kvm object: Error(13)\n" +
			"note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\nfatal runtime error: failed to initiate panic, error 5, aborting\n"
		refused = "aegis-vmm-worker: krun_start_enter: invalid argument\n"
	)
	for _, c := range []struct {
		what string
		e    ending
		want string
	}{
		{"killed", ending{killed: true, status: status(9)}, "killed"},
		{"restarted", ending{status: status(0), console: "reboot: Restarting system\n"}, "powered_off"},
		{"panic", ending{status: status(0), console: panicking}, "panicked: Kernel panic - not syncing: Attempted to kill init!"},
		{"reset", ending{status: status(0), console: "quiet"}, "panicked: the guest reset without a word"},
		{"signal", ending{status: status(11)}, "died: the worker was ended by signal 11 (segmentation fault)"},
		{"abort", ending{status: status(6), words: aborted}, "died: the worker was ended by signal 6 (aborted): Error creating the Kvm object: Error(13)"},
		{"a guest that pretends", ending{status: status(1 << 8), console: panicking, words: refused}, "died: libkrun ended with status 1: krun_start_enter: invalid argument"},
		{"adopted, restarted", ending{console: "reboot: Restarting system\n"}, "powered_off"},
		{"adopted, panic", ending{console: panicking}, "panicked: Kernel panic - not syncing: Attempted to kill init!"},
		{"adopted, gone", ending{words: "\x1b[31mlast\n"}, "died: the worker's process is gone: [31mlast"},
	} {
		if got := c.e.exit().String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if r := (&ending{killed: true}).exit().Reason; r != vmm.Killed {
		t.Errorf("reason %q", r)
	}
}

func TestCommandLine(t *testing.T) {
	spec := vmm.Spec{Disks: []vmm.Disk{{Name: "base"}, {Name: "disk"}}, Cmdline: "aegis.magic=00"}
	common := " panic=-1 quiet cryptomgr.notests init_on_alloc=0 audit=0 random.trust_cpu=on nowatchdog" +
		" rcupdate.rcu_cpu_stall_suppress=1 aegis.end=restart aegis.disks=base,disk aegis.magic=00"
	for arch, first := range map[string]string{
		"amd64": "console=ttyS0 8250.nr_uarts=1 reboot=k no_timer_check i8042.noaux i8042.nokbd",
		"arm64": "console=ttyAMA0",
	} {
		if got := commandLineFor(&spec, arch); got != first+common {
			t.Errorf("%s: %q", arch, got)
		}
	}
}
