package instance

import (
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// exitFault explains the end of a machine to a person.
func exitFault(e vmm.Exit) error {
	switch e.Reason {
	case vmm.Panicked:
		return panicFault(or(e.Detail, "no reason given"))
	case vmm.Died:
		return fault.New(fault.Unavailable, "the VM's process ended: %s", or(e.Detail, "no reason given")).By(fault.Driver).
			WithHint("run it again; if it happens again, look at: aegis doctor")
	case vmm.PoweredOff:
		return fault.Wrap(fault.Unavailable, endedError("the VM turned itself off before the command had ended"), "").
			By(fault.Program).WithHint("the command, or something that it started, powered the VM off")
	case vmm.Killed:
	}
	return fault.Wrap(fault.Conflict, endedError("the VM was stopped"), "")
}

// endedError is an ErrEnded in words for people.
type endedError string

// Error implements error.
func (e endedError) Error() string { return string(e) }

// Is makes it an ErrEnded.
func (e endedError) Is(target error) bool { return target == ErrEnded }

// panicFault explains the end of a guest's kernel by its own last words.
func panicFault(words string) error {
	f := fault.New(fault.Unavailable, "the VM's kernel stopped: %s", words).By(fault.Guest).
		WithHint("what its console said last is in data/aegisd.log in AEGIS_HOME")
	switch {
	case strings.Contains(words, "Attempted to kill init"):
		f.Msg = "AegisVM's own process in the VM ended: " + words
	case strings.Contains(words, "Unable to mount root fs"), strings.Contains(words, "No working init found"):
		f.Msg = "the VM's kernel found no program to start: " + words
		_ = f.By(fault.Host).WithHint("remove kernel/initrd-* in AEGIS_HOME and run it again; if that does not help, install AegisVM again")
	case strings.Contains(strings.ToLower(words), "memory"):
		f.Hint = "give it more memory: --memory"
	}
	return f
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
