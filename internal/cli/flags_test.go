package cli

import (
	"maps"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func lookup(k string) (string, bool) {
	v, ok := map[string]string{"HERE": "from here", "EMPTY": ""}[k]
	return v, ok
}

func TestEnv(t *testing.T) {
	e := envFlags{lookup: lookup}
	file := "# comment\n\n  A=file\nB= spaces stay \nHERE\nC==\r\nD=a=b\n"
	e.files = map[string]string{}
	if err := (envFileFlag{&e}).read("f", strings.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"A=flag", "EMPTY", "X=", "A=last"} {
		if err := (envFlag{&e}).Set(s); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"A": "last", "B": " spaces stay ", "HERE": "from here", "C": "=", "D": "a=b", "EMPTY": "", "X": ""}
	if got := e.merged(); !maps.Equal(got, want) {
		t.Errorf("environment = %q, want %q", got, want)
	}
	for in, msg := range map[string]string{
		"NOT_SET\n":   "f:1: NOT_SET is not set here",
		"A=1\n=x\n":   `f:2: "=x" is not KEY=VALUE`,
		"KEY = x\n":   "f:1: a space before =",
		"A=\x00\n":    "is not KEY=VALUE",
		"\n\nNO WAY ": "f:3: NO WAY  is not set here",
	} {
		if err := (envFileFlag{&e}).read("f", strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), msg) {
			t.Errorf("%q: %v, want %s", in, err, msg)
		}
	}
}

func TestSizeFlag(t *testing.T) {
	for in, want := range map[string]int64{"512": 512, "1G": 1024, "1.5M": 2, "600K": 1, "1": 1} {
		var f sizeFlag
		if err := f.Set(in); err != nil || f.mb != want {
			t.Errorf("%q = %d MB, %v; want %d", in, f.mb, err, want)
		}
	}
	for _, in := range []string{"", "0", "0K", "-1", "lots", "1X"} {
		if err := new(sizeFlag).Set(in); err == nil {
			t.Errorf("%q is a size", in)
		}
	}
}

func TestCountFlag(t *testing.T) {
	var f countFlag
	if err := f.Set("4"); err != nil || f != 4 {
		t.Errorf("%d, %v", f, err)
	}
	for _, in := range []string{"", "0", "-1", "1.5", "many"} {
		if err := f.Set(in); err == nil {
			t.Errorf("%q is a count", in)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"memroy", "memory", 2}, {"cpu", "cpus", 1}, {"envfile", "env-file", 1}, {"tty", "user", 4}} {
		if got, back := editDistance(c.a, c.b), editDistance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("editDistance(%q, %q) = %d, back %d; want %d", c.a, c.b, got, back, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	long := strings.Repeat("word ", 40) + "\n\nnext\nparagraph"
	got := wrap(long)
	for line := range strings.Lines(got) {
		if len(strings.TrimSuffix(line, "\n")) > width {
			t.Errorf("%d letters: %q", len(line), line)
		}
	}
	if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(long), " ") || !strings.HasSuffix(got, "\n\nnext paragraph") {
		t.Errorf("wrap = %q", got)
	}
	if got := wrap(strings.Repeat("x", 100) + " y"); got != strings.Repeat("x", 100)+"\ny" {
		t.Errorf("a long word: %q", got)
	}
}

// TestEveryKindHasAStatus holds the table against the list of kinds.
func TestEveryKindHasAStatus(t *testing.T) {
	for _, k := range fault.Kinds() {
		if s := statuses[k]; s.own == 0 || s.program == 0 {
			t.Errorf("%s has no status", k)
		}
	}
}

// TestEveryCommandHasHelp wants a description of every command, examples, and lines
// that fit.
func TestEveryCommandHasHelp(t *testing.T) {
	root := newRoot(&app{lookup: lookup})
	commands := append(root.Commands(), root)
	for i := 0; i < len(commands); i++ {
		c := commands[i]
		if c != root {
			commands = append(commands, c.Commands()...)
		}
		if c.Short == "" || (c.Example == "" && !c.HasSubCommands()) {
			t.Errorf("%s has no description or no example", c.CommandPath())
		}
		for line := range strings.Lines(helpText(c)) {
			if n := len(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: a line of %d letters: %s", c.CommandPath(), n, line)
			}
		}
	}
}

func TestSimilarCommand(t *testing.T) {
	root := newRoot(&app{})
	for typed, want := range map[string]string{
		"rn": "run", "runn": "run", "exce": "exec", "instances": "instance", "nosuch": "",
		"ps": "instance list", "list": "instance list", "stop": "instance stop", "start": "instance start", "rm": "instance delete", "ssh": "shell", "copy": "cp", "x": "", "": "",
	} {
		if got := similarCommand(root, typed); got != want {
			t.Errorf("%q is taken for %q, want %q", typed, got, want)
		}
	}
}
