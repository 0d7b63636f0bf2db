package cli

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

func TestCommandText(t *testing.T) {
	for want, command := range map[string][]string{
		"sleep 1000":             {"sleep", "1000"},
		"sh -c 'echo $A; exit'":  {"sh", "-c", "echo $A; exit"},
		`echo 'it'\''s' ''`:      {"echo", "it's", ""},
		`printf $'a\nb\x1b[31m'`: {"printf", "a\nb\x1b[31m"},
		`echo $'\xff'`:           {"echo", "\xff"},
		"./serve --port=80 a@b:": {"./serve", "--port=80", "a@b:"},
		"echo 'grüße'":           {"echo", "grüße"},
	} {
		if got := commandText(command); got != want {
			t.Errorf("%q is %s, want %s", command, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"12345", "12345"}, {"123456", "12..."}, {"üüüüü", "üüüüü"}, {"üüüüüü", "üü..."}} {
		if got := shorten(c.in, 5); got != c.want {
			t.Errorf("%s is %s, want %s", c.in, got, c.want)
		}
	}
}

func TestSpans(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": -time.Second, "59s": 59 * time.Second, "119s": 119 * time.Second, "2m": 2 * time.Minute, "119m": 119 * time.Minute,
		"2h": 2*time.Hour + 59*time.Minute, "47h": 47 * time.Hour, "2d": 48 * time.Hour, "100d": 100 * 24 * time.Hour,
	} {
		if got := spanText(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
	for want, s := range map[string]int64{"never": 0, "30s": 30, "1m": 60, "1m30s": 90, "1h": 3600, "1h1m": 3660, "168h": 7 * 24 * 3600} {
		if got := pauseText(s); got != want {
			t.Errorf("%d seconds are %s, want %s", s, got, want)
		}
	}
}

func TestSpanFlag(t *testing.T) {
	var f spanFlag
	if f.wholeSeconds() != nil {
		t.Error("a span that was not given is one")
	}
	for in, want := range map[string]int64{"0": 0, "3": 3, "1.5s": 2, "5m": 300, "7d": 604800} {
		if err := f.Set(in); err != nil || *f.wholeSeconds() != want {
			t.Errorf("%s is %d, %v; want %d", in, *f.wholeSeconds(), err, want)
		}
	}
	if f.Set("-1s") == nil {
		t.Error("a negative span is taken")
	}
}

func TestTables(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := listText([]api.Instance{
		{ID: "inst-1", Handle: "web", State: "running", Enabled: true, CreatedAt: now.Add(-3 * time.Hour), Command: []string{"serve"}},
		{ID: "inst-2", Handle: "inst-2", State: "stopped", CreatedAt: now, Command: []string{"sh", "-c", "true"}},
	}, now)
	want := `ID      HANDLE  KIT  STATUS    STATE    AGE  COMMAND
inst-1  web     -    enabled   running  3h   serve
inst-2  inst-2  -    disabled  stopped  0s   sh -c true
`
	if got != want {
		t.Errorf("list:\n%s\nwant:\n%s", got, want)
	}
	if got, want := facts([][2]string{{"a", "1"}, {"why", ""}, {"long", "2"}}), "a     1\nlong  2\n"; got != want {
		t.Errorf("facts = %q, want %q", got, want)
	}
}

// recorder notes which stream was written in which order.
type recorder struct {
	all  *bytes.Buffer
	name string
}

func (r recorder) Write(b []byte) (int, error) {
	r.all.WriteString(r.name + string(b))
	return len(b), nil
}

func TestLogPrinter(t *testing.T) {
	var all bytes.Buffer
	p := newLogPrinter(recorder{&all, ">"}, recorder{&all, "!"})
	for _, e := range []api.LogEntry{
		{Stream: "stdout", Line: "one", Source: "server"},
		{Stream: "stdout", Line: "two", Source: "server"},
		{Stream: "stderr", Line: "three", Source: "server"},
		{Stream: "stdout", Line: "\ufffd", Bytes: []byte("\xff"), Source: "server"},
		{Stream: "stdout", Line: "last wor", Source: "server", Open: true},
		{Stream: "stdout", Line: "process exited (code=0)", Source: "system"},
		{Stream: "from the future", Line: "no end", Source: "server", Open: true},
	} {
		if err := p.print(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	if want := ">one\ntwo\n!three\n>\xff\nlast wor\n[system] process exited (code=0)\nno end"; all.String() != want {
		t.Errorf("%q, want %q", all.String(), want)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestLogPrinterBrokenPipe(t *testing.T) {
	p := newLogPrinter(broken{}, broken{})
	err := p.print(api.LogEntry{Stream: "stdout", Line: "x"})
	if err = errors.Join(err, p.flush()); !isBrokenPipe(err) {
		t.Errorf("%v is not a broken pipe", err)
	}
}

// TestHarmless: what a model writes does nothing to a terminal, and is otherwise as it was.
func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"a\n\tb ü 🎉": "a\n\tb ü 🎉", "\x1b]52;c;aGk=\x07x": "]52;c;aGk=x", "\x1b[2J\r\u009b31m": "[2J31m", "\x00\x7f": "",
	} {
		if got := harmless(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
