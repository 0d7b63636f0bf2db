package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestAsk types at a terminal, which never shows it and is afterwards as it was. What
// signals do is in test/script.
func TestAsk(t *testing.T) {
	long := strings.Repeat("x", maxTyped-1)
	for name, c := range map[string]struct{ keys, want, err string }{
		"a line":      {"hunter2 \n", "hunter2 ", ""},
		"a long line": {long + "\n", long, ""},
		"too long":    {long + "xx\n", "", "cannot be typed"},
		"a paste":     {"hunter2\nhunter3\n", "", "more than one line"},
		"without end": {"hunter2\nhunter3", "", "more than one line"},
		"nothing":     {"\n", "", ""},
		"Ctrl-D":      {"\x04", "", ""},
		"taken back":  {"hunter2\x15hunter4\n", "hunter4", ""},
	} {
		t.Run(name, func(t *testing.T) {
			x := openAsking(t)
			got, err := x.ask(t.Context(), c.keys)
			if c.err == "" && (err != nil || got != c.want) {
				t.Errorf("%.20q, %v; want %.20q", got, err, c.want)
			}
			if c.err != "" && (fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), c.err) || fault.HintOf(err) == "") {
				t.Errorf("err = %v, hint %q", err, fault.HintOf(err))
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		x := openAsking(t)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(stop) })
		if _, err := x.ask(ctx, ""); !errors.Is(err, stop) {
			t.Errorf("err = %v", err)
		}
	})
}

// asking is a terminal, at which one question is asked.
type asking struct {
	t         *testing.T
	far, near *os.File
	shown     chan string // all that the terminal shows, once near is closed
}

func openAsking(t *testing.T) *asking {
	t.Helper()
	far, near, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	x := &asking{t, far, near, make(chan string, 1)}
	t.Cleanup(func() { _ = far.Close() })
	return x
}

// ask answers with keys once the question stands there.
func (x *asking) ask(ctx context.Context, keys string) (string, error) {
	x.t.Helper()
	before, err := term.GetState(int(x.near.Fd()))
	if err != nil {
		x.t.Fatal(err)
	}
	go func() { // ends with the terminal
		var shown strings.Builder
		buf := make([]byte, 1<<16)
		for asked := false; ; {
			n, err := x.far.Read(buf)
			shown.Write(buf[:n])
			if err != nil {
				x.shown <- shown.String()
				return
			}
			if !asked && strings.Contains(shown.String(), "Value: ") {
				asked = true
				_, _ = x.far.WriteString(keys) // it is looked at what comes of it
			}
		}
	}()
	got, err := (&app{in: x.near, err: x.near}).ask(ctx, "Value: ")
	after, stateErr := term.GetState(int(x.near.Fd()))
	if stateErr != nil || *after != *before {
		x.t.Errorf("the terminal is not as it was, %v", stateErr)
	}
	if ctx.Err() != nil { // the read goes on, and would keep the terminal open
		if _, err := x.far.WriteString("\n"); err != nil {
			x.t.Error(err)
		}
	}
	if err := x.near.Close(); err != nil {
		x.t.Error(err)
	}
	if shown := <-x.shown; strings.Contains(shown, "hunter") || strings.Contains(shown, "xx") {
		x.t.Errorf("the terminal shows it: %q", shown)
	}
	return got, err
}
