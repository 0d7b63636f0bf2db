package docs

import (
	"regexp"
	"strings"
)

// Match reports whether output is what a page shows. See the package's comment for what
// "..." stands for.
func Match(shown []string, output string) bool {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range lines(shown) {
		if line == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(line, "...")
		for i, p := range parts {
			parts[i] = regexp.QuoteMeta(p)
		}
		b.WriteString(strings.Join(parts, ".*") + `\n`)
	}
	b.WriteString(`\z`)
	got := strings.Join(lines(strings.Split(output, "\n")), "\n")
	if got != "" {
		got += "\n"
	}
	return regexp.MustCompile(b.String()).MatchString(got)
}

// starting is said by whichever command comes first where no daemon runs.
const starting = "aegis: starting aegisd"

var blanks = regexp.MustCompile(`[ \t]+`)

// lines makes runs of blanks one, and drops those at the end of lines, and empty lines at
// the end and the beginning.
func lines(in []string) []string {
	var out []string
	for _, l := range in {
		l = strings.TrimRight(blanks.ReplaceAllString(strings.TrimSuffix(l, "\r"), " "), " ")
		if l == starting {
			continue
		}
		if l != "" || len(out) > 0 {
			out = append(out, l)
		}
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}
