package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// session is this program's streams as those of a program in a VM.
type session struct {
	app   *app
	stdin bool // is forwarded
	tty   bool // the program has a terminal
	local bool // and this program's stdin is one
}

// fallback is the size of a terminal where there is none here.
var fallback = api.Winsize{Cols: 80, Rows: 24}

func newSession(a *app, interactive, tty bool) (*session, error) {
	s := &session{app: a, stdin: interactive, tty: tty, local: tty && isTerminal(a.in)}
	if tty && interactive && !s.local {
		return nil, fault.New(fault.Invalid, "-t with -i needs a terminal, and stdin is none").
			WithHint("leave -t out, or -i")
	}
	s.stdin = s.stdin || s.local
	return s, nil
}

// size returns the size of the program's terminal, nil if it has none.
func (s *session) size() *api.Winsize {
	if !s.tty {
		return nil
	}
	for _, f := range []*os.File{s.app.in, s.app.out, s.app.err} {
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 && rows > 0 {
			return &api.Winsize{Cols: uint16(cols), Rows: uint16(rows)} //nolint:gosec // the kernel keeps them in 16 bits
		}
	}
	size := fallback
	return &size
}

// stream connects the program until it ends, and returns its status. The terminal is
// as it was when stream returns, and from the moment on that ctx ends.
func (s *session) stream(ctx context.Context, attach *client.Attach) (int, error) {
	streams := client.Streams{Stdout: s.app.out, Stderr: s.app.err, Notice: s.note}
	if s.stdin {
		streams.Stdin = s.app.in
	}
	if s.local {
		restore, err := raw(s.app.in)
		if err != nil {
			_ = attach.Close() // the first error tells more
			return 0, err
		}
		defer restore()
		stop := context.AfterFunc(ctx, restore)
		defer stop()
		defer s.followSize(attach)()
	}
	return attach.Stream(ctx, streams)
}

// note tells the user what is not of the program.
func (s *session) note(e *client.Error) {
	text := describeError(e)
	if s.local {
		text = strings.ReplaceAll(text, "\n", "\r\n") // see raw
	}
	_, _ = io.WriteString(s.app.err, text) // as in say
}

// raw gives the terminal's keys to the program, Ctrl-C among them. restore may be
// called more than once.
func raw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("set the terminal: %w", err)
	}
	// An error means that the terminal has gone.
	return sync.OnceFunc(func() { _ = term.Restore(fd, before) }), nil
}

// followSize tells the program whenever the size of the terminal changes, until stop
// is called.
func (s *session) followSize(attach *client.Attach) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			// First of all: it may have changed while the VM booted. When the connection
			// has ended, Stream tells.
			_ = attach.Resize(*s.size())
			select {
			case <-changes:
			case <-quit:
				return
			}
		}
	})
	return func() {
		signal.Stop(changes)
		close(quit)
		wg.Wait()
	}
}
