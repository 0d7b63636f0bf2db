package cli

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
)

// table lays out rows, the first of which is the head.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t")) // into memory
	}
	_ = w.Flush() // as above
	return b.String()
}

// facts lays out lines of a name and a value; those without a value are left out.
func facts(lines [][2]string) string {
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	var b strings.Builder
	for _, l := range lines {
		if l[1] != "" {
			fmt.Fprintf(&b, "%-*s  %s\n", width, l[0], l[1])
		}
	}
	return b.String()
}

// commandText is a command as it could be typed, in one line without control
// characters.
func commandText(command []string) string {
	words := make([]string, 0, len(command))
	for _, w := range command {
		words = append(words, quote(w))
	}
	return strings.Join(words, " ")
}

func quote(word string) string {
	plain, printable := word != "", utf8.ValidString(word)
	for _, r := range word {
		plain = plain && (r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("-_./:=,+@%", r))
		printable = printable && unicode.IsPrint(r)
	}
	switch {
	case plain:
		return word
	case printable:
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return "$" + "'" + strings.ReplaceAll(strings.Trim(strconv.Quote(word), `"`), "'", `\'`) + "'"
}

// shorten cuts a text that is longer than n characters.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-3]) + "..."
}

// spanText is a span of time in its largest unit, as people say it.
func spanText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", max(0, d)/time.Second)
}

// stateOf is an instance's state in one word.
func stateOf(i api.Instance) string {
	if i.State == api.StateStopped && !i.Enabled {
		return "disabled"
	}
	return i.State
}
