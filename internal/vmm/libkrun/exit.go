package libkrun

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"unicode"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// ending is what is known about a worker that has ended.
type ending struct {
	killed  bool                // Machine.Kill was called
	status  *syscall.WaitStatus // nil for a process that was not our child
	console string              // last of what the guest wrote to its console
	words   string              // last of what the worker and libkrun wrote
}

var (
	panicLine = regexp.MustCompile(`Kernel panic - not syncing: [^\r\n]*`)
	// goodEnd is what a kernel says when its end was asked for.
	goodEnd = regexp.MustCompile(`reboot: (Restarting system|Power down|System halted)`)
)

// exit classifies an ending. A guest can write what it likes to its console; what it
// says is believed only where nothing says that it was not the guest that ended.
func (e *ending) exit() vmm.Exit {
	switch {
	case e.killed:
		return vmm.Exit{Reason: vmm.Killed}
	case e.status != nil && e.status.Signaled():
		return vmm.Exit{Reason: vmm.Died, Detail: withWords(signalDetail(e.status.Signal()), e.words)}
	case e.status != nil && e.status.ExitStatus() != 0:
		return vmm.Exit{Reason: vmm.Died, Detail: withWords(fmt.Sprintf("libkrun ended with status %d", e.status.ExitStatus()), e.words)}
	}
	if line := panicLine.FindString(e.console); line != "" {
		return vmm.Exit{Reason: vmm.Panicked, Detail: printable(line)}
	}
	switch {
	case goodEnd.MatchString(e.console):
		return vmm.Exit{Reason: vmm.PoweredOff}
	case e.status != nil: // by a triple fault, of which the kernel can say nothing
		return vmm.Exit{Reason: vmm.Panicked, Detail: "the guest reset without a word"}
	}
	return vmm.Exit{Reason: vmm.Died, Detail: withWords("the worker's process is gone", e.words)}
}

func signalDetail(s syscall.Signal) string {
	d := fmt.Sprintf("the worker was ended by signal %d (%s)", int(s), s)
	if s == syscall.SIGKILL {
		d += "; the host may be out of memory"
	}
	return d
}

func withWords(what, words string) string {
	if w := lastWords(words); w != "" {
		return what + ": " + w
	}
	return what
}

// noise is what Rust's runtime adds to what libkrun says when it aborts.
var noise = regexp.MustCompile(`^(note: run with|fatal runtime error:|thread '.* panicked at )`)

// lastWords returns the last lines of a program's stderr as one.
func lastWords(words string) string {
	var lines []string
	for line := range strings.Lines(words) {
		line = strings.TrimSpace(strings.TrimPrefix(printable(line), "aegis-vmm-worker: "))
		if line != "" && !noise.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// printable drops control characters: what it is given comes from a guest and goes to
// terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
