package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// ending is what is known about a process that has ended.
type ending struct {
	killed   bool                // Machine.Kill was called
	shutdown string              // reason in QMP's SHUTDOWN event, or ""
	status   *syscall.WaitStatus // nil for a process that was not our child
	console  string              // last of what the guest wrote to its console
	stderr   string              // last of what QEMU wrote
}

var panicLine = regexp.MustCompile(`Kernel panic - not syncing: [^\r\n]*`)

// exit classifies an ending. A guest can write what it likes to its console; what
// it says is believed only where QEMU reports that the guest itself ended.
func (e *ending) exit() vmm.Exit {
	switch {
	case e.killed:
		return vmm.Exit{Reason: vmm.Killed}
	case e.shutdown == "guest-shutdown":
		return vmm.Exit{Reason: vmm.PoweredOff}
	case e.shutdown == "guest-reset":
		return e.reset()
	case e.shutdown == "guest-panic":
		return vmm.Exit{Reason: vmm.Panicked, Detail: e.panicDetail()}
	case e.shutdown != "":
		return vmm.Exit{Reason: vmm.Died, Detail: "QEMU was told to end from outside (" + e.shutdown + ")"}
	case e.status == nil:
		return e.unwitnessed()
	case e.status.Signaled():
		return vmm.Exit{Reason: vmm.Died, Detail: signalDetail(e.status.Signal())}
	case e.status.ExitStatus() != 0:
		return vmm.Exit{Reason: vmm.Died, Detail: withWords(fmt.Sprintf("QEMU ended with status %d", e.status.ExitStatus()), e.stderr)}
	}
	return e.unwitnessed()
}

// reset is the end of a guest whose machine was reset: by a panic, by reboot(2),
// or by a triple fault, of which the kernel can say nothing.
func (e *ending) reset() vmm.Exit {
	if d := e.panicDetail(); d != "" {
		return vmm.Exit{Reason: vmm.Panicked, Detail: d}
	}
	if strings.Contains(e.console, "reboot: Restarting system") {
		return vmm.Exit{Reason: vmm.PoweredOff, Detail: "the guest rebooted"}
	}
	return vmm.Exit{Reason: vmm.Panicked, Detail: "the guest reset without a word"}
}

// unwitnessed is an end of which QMP told nothing and the wait status, if there is
// one, is 0.
func (e *ending) unwitnessed() vmm.Exit {
	if d := e.panicDetail(); d != "" {
		return vmm.Exit{Reason: vmm.Panicked, Detail: d}
	}
	if e.status != nil || strings.Contains(e.console, "reboot: Power down") {
		return vmm.Exit{Reason: vmm.PoweredOff}
	}
	return vmm.Exit{Reason: vmm.Died, Detail: withWords("QEMU's process is gone", e.stderr)}
}

// refused tells whether QEMU ended because it did not like what it was given.
func (e *ending) refused() bool {
	return e.status != nil && e.status.Exited() && e.status.ExitStatus() != 0
}

func (e *ending) panicDetail() string {
	return printable(panicLine.FindString(e.console))
}

func signalDetail(s syscall.Signal) string {
	d := fmt.Sprintf("QEMU was ended by signal %d (%s)", int(s), s)
	if s == syscall.SIGKILL {
		d += "; the host may be out of memory"
	}
	return d
}

func withWords(what, stderr string) string {
	if w := lastWords(stderr); w != "" {
		return what + ": " + w
	}
	return what
}

// lastWords returns the last lines of a program's stderr as one.
func lastWords(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(programPrefix.ReplaceAllString(printable(line), ""))
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

var programPrefix = regexp.MustCompile(`^qemu-system-\w+: `)

// printable drops control characters: what it is given comes from a guest and
// goes to terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

// dying tells whether an error is what one sees of a process that goes.
func dying(err error) bool {
	for _, sign := range []error{
		errQMPClosed, net.ErrClosed, os.ErrClosed, vmm.ErrEnded,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT,
	} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
