package host

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"unicode"
)

var panicLine = regexp.MustCompile(`Kernel panic - not syncing: [^\r\n]*`)

// PanicLine returns the line with which the guest's kernel died, or "". A guest can
// write what it likes to its console: it is to be believed only where something else
// says that the guest has ended.
func PanicLine(console string) string { return Printable(panicLine.FindString(console)) }

// SignalDetail tells people of the signal that ended a VMM.
func SignalDetail(vmm string, s syscall.Signal) string {
	d := fmt.Sprintf("%s was ended by signal %d (%s)", vmm, int(s), s)
	if s == syscall.SIGKILL {
		d += "; the host may be out of memory"
	}
	return d
}

// WithWords adds the last lines of a program's stderr to what is told of its end.
func WithWords(what, stderr string) string {
	if w := LastWords(stderr); w != "" {
		return what + ": " + w
	}
	return what
}

// LastWords returns the last lines of a program's stderr as one.
func LastWords(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(Printable(line)); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}

// Printable drops control characters: what it is given comes from a guest and
// goes to terminals.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}
