package apt

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Source is one archive of packages.
type Source struct {
	Options    string // inside the brackets, such as "signed-by=/usr/share/keyrings/x.gpg"; may be empty
	URI        string
	Suite      string
	Components string // separated by spaces
}

// String returns the source as a line of sources.list.
func (s Source) String() string {
	line := "deb "
	if s.Options != "" {
		line += "[" + s.Options + "] "
	}
	return line + s.URI + " " + s.Suite + " " + s.Components
}

// Lines returns sources as the lines of sources.list.
func Lines(sources []Source) []string {
	lines := make([]string, len(sources))
	for i, s := range sources {
		lines[i] = s.String()
	}
	return lines
}

// HostSources returns the sources of the distribution d among those that are set
// up in etc, which is /etc/apt. Where there are none it returns the distribution's
// own, with its keyring.
func HostSources(etc string, d Distro) []Source {
	var all []Source
	files, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*")) // the pattern is good
	for _, file := range append([]string{filepath.Join(etc, "sources.list")}, files...) {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // a source that we may not read is one we do without
		}
		switch filepath.Ext(file) {
		case ".list":
			all = append(all, parseList(string(data))...)
		case ".sources":
			all = append(all, parseDeb822(string(data))...)
		}
	}
	own := slices.DeleteFunc(all, func(s Source) bool { return !s.official(d) })
	// Without the release itself its updates are of no use.
	if !slices.ContainsFunc(own, func(s Source) bool { return s.Suite == d.Codename }) {
		return defaultSources(d)
	}
	return own
}

var signedBy = regexp.MustCompile(`signed-by=(\S+)`)

// official tells whether s looks like an archive of the distribution itself: its
// suite, its component, its key.
func (s Source) official(d Distro) bool {
	suffix, ok := strings.CutPrefix(s.Suite, d.Codename)
	if !ok || !slices.Contains([]string{"", "-updates", "-security", "/updates"}, suffix) {
		return false
	}
	if !slices.Contains(strings.Fields(s.Components), "main") {
		return false
	}
	m := signedBy.FindStringSubmatch(s.Options)
	return m == nil || strings.HasPrefix(filepath.Base(m[1]), d.ID+"-archive-")
}

func defaultSources(d Distro) []Source {
	keyring := "/usr/share/keyrings/" + d.ID + "-archive-keyring.gpg"
	options := ""
	if _, err := os.Stat(keyring); err == nil {
		options = "signed-by=" + keyring
	}
	if d.ID == "ubuntu" {
		mirror := "http://archive.ubuntu.com/ubuntu"
		if !slices.Contains([]string{"amd64", "386"}, goarch) {
			mirror = "http://ports.ubuntu.com/ubuntu-ports"
		}
		return []Source{
			{options, mirror, d.Codename, "main"},
			{options, mirror, d.Codename + "-updates", "main"},
			{options, mirror, d.Codename + "-security", "main"},
		}
	}
	return []Source{
		{options, "http://deb.debian.org/debian", d.Codename, "main"},
		{options, "http://deb.debian.org/debian", d.Codename + "-updates", "main"},
		{options, "http://deb.debian.org/debian-security", d.Codename + "-security", "main"},
	}
}

var listLine = regexp.MustCompile(`^deb\s+(?:\[\s*([^]]*?)\s*\]\s+)?(\S+)\s+(\S+)\s+(.+)$`)

// parseList reads the one-line form, see sources.list(5).
func parseList(text string) []Source {
	var out []Source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if m := listLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			out = append(out, Source{m[1], m[2], m[3], strings.Join(strings.Fields(m[4]), " ")})
		}
	}
	return out
}

// parseDeb822 reads the form of paragraphs, see sources.list(5). Keys that stand in
// the file itself are not taken over: such an archive is a third party's.
func parseDeb822(text string) []Source {
	var out []Source
	for _, paragraph := range regexp.MustCompile(`\n\s*\n`).Split(text, -1) {
		f := fields(paragraph)
		if f["enabled"] == "no" || !slices.Contains(strings.Fields(f["types"]), "deb") {
			continue
		}
		options := ""
		if key := f["signed-by"]; key != "" {
			options = "signed-by=" + strings.Join(strings.Fields(key), ",")
		}
		for uri := range strings.FieldsSeq(f["uris"]) {
			for suite := range strings.FieldsSeq(f["suites"]) {
				out = append(out, Source{options, uri, suite, strings.Join(strings.Fields(f["components"]), " ")})
			}
		}
	}
	return out
}

// fields reads one paragraph of "Key: value" lines, which may go on in lines that
// begin with a space. Keys come in lower case.
func fields(paragraph string) map[string]string {
	out := map[string]string{}
	last := ""
	for line := range strings.Lines(paragraph) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			out[last] += "\n" + strings.TrimSpace(line)
		default:
			if key, value, ok := strings.Cut(line, ":"); ok {
				last = strings.ToLower(key)
				out[last] = strings.TrimSpace(value)
			}
		}
	}
	return out
}
