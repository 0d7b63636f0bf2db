package guestlink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// TestPausedForHours: a guest that is paused in the middle of everything is not given up. It
// goes on, hours later, on the connection that it had. The hours pass in a process of their
// own: yamux keeps timers for all sessions of a process, and those of a bubble are no others'.
func TestPausedForHours(t *testing.T) {
	const alone = "AEGIS_TEST_PAUSED"
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPausedForHours$", "-test.count=1")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, guesttest.Options{})
		l := r.open(t)
		a := start(t, l, guestproto.Spawn{ID: "cat", Command: []string{"cat"}, Stdin: true})
		before := r.dials.Load()
		r.pipe.Pause()
		sent := make(chan error, 1)
		data := bytes.Repeat([]byte("x"), 2<<20) // more than any buffer on the way
		go func() { sent <- send(a, data) }()
		var out bytes.Buffer
		ended := make(chan error, 1)
		go func() {
			_, err := drain(a, &out, io.Discard)
			ended <- err
		}()
		opened := make(chan error, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		go func() { opened <- l.Spawn(ctx, guestproto.Spawn{ID: "late", Command: []string{"true"}}) }()
		go func() {
			_, err := l.Attach(ctx, "none", 0) // a stream of its own
			opened <- err
		}()
		time.Sleep(3 * time.Hour)
		for range cap(opened) {
			if err := <-opened; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a call that nobody waits for any more: %v", err)
			}
		}
		r.pipe.Resume()
		if err := errors.Join(<-sent, <-ended); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d of %d bytes, %v", out.Len(), len(data), err)
		}
		if n := r.dials.Load(); n != before {
			t.Errorf("the guest was dialled %d times more", n-before)
		}
	})
}
