package tool

import (
	"fmt"
	"strings"
)

// The limits of a diff.
const (
	diffContext  = 3   // lines around a change
	maxDiffLines = 120 // of one
)

// diff returns what changed between two texts, as one piece in the unified form: from the
// first line that differs to the last.
func diff(before, after string) string {
	if before == after {
		return "(nothing changed)"
	}
	a, b := strings.SplitAfter(before, "\n"), strings.SplitAfter(after, "\n")
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	from := max(0, head-diffContext)
	var out []string
	add := func(sign string, lines []string) {
		for _, l := range lines {
			if l != "" {
				out = append(out, sign+strings.TrimSuffix(l, "\n"))
			}
		}
	}
	add(" ", a[from:head])
	add("-", a[head:len(a)-tail])
	add("+", b[head:len(b)-tail])
	add(" ", a[len(a)-tail:min(len(a), len(a)-tail+diffContext)])
	if len(out) > maxDiffLines {
		left := len(out) - maxDiffLines
		out = append(out[:maxDiffLines], fmt.Sprintf("[... %d lines more]", left))
	}
	old, fresh := len(a)-tail-from, len(b)-tail-from
	return fmt.Sprintf("@@ -%d,%d +%d,%d @@\n%s", from+1, old, from+1, fresh, strings.Join(out, "\n"))
}
