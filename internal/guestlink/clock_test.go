package guestlink

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
)

// TestClockOfSlowGuest has a guest that takes its time over Hello. It knows how long, and
// need not be told of the clock again.
func TestClockOfSlowGuest(t *testing.T) {
	const late = 2 * time.Second // far more than a busy host adds
	rec := &guesttest.Record{}
	r := newRig(t, guesttest.Options{Record: rec, Late: func(what string) {
		if what == "ready" {
			time.Sleep(late)
		}
	}})
	r.open(t)
	thaws := rec.Thaws()
	if len(thaws) == 0 {
		t.Fatal("the clock was not set")
	}
	for _, thaw := range thaws {
		if age := time.Since(time.Unix(0, thaw.UnixNano)); age > late/2 {
			t.Errorf("the clock was set to what it had been %v ago", age)
		}
	}
}

// TestThawAgain has a guest that answers some thaws late.
func TestThawAgain(t *testing.T) {
	rec := &guesttest.Record{}
	var slow atomic.Int32
	r := newRig(t, guesttest.Options{Record: rec, Late: func(what string) {
		if what == "thaw" && slow.Add(-1) >= 0 {
			time.Sleep(2 * prompt)
		}
	}})
	l := r.open(t)
	for _, c := range []struct {
		slow    int32
		atLeast int
	}{{0, 1}, {2, 3}, {100, settings}} {
		slow.Store(c.slow)
		before := len(rec.Thaws())
		if err := l.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(rec.Thaws()) - before; n < c.atLeast || n > settings {
			t.Errorf("%d late answers: the clock was set %d times, want %d", c.slow, n, c.atLeast)
		}
	}
}
