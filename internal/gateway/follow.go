package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// maxUnshown bounds how many answers are taken from the daemon and not shown yet.
const maxUnshown = 256

// errEnded says that the daemon has ended a stream, as it does when it ends itself.
var errEnded = fault.New(fault.Unavailable, "the daemon ended the stream of answers")

// follow gives sessions what the agent says, from where the channel has read to.
func (l *Line) follow(ctx context.Context, ch Channel) {
	pause := newBackoff()
	seq, begun := int64(0), false
	for ctx.Err() == nil {
		err := error(errEnded)
		if !begun {
			var w api.Watermark
			if w, err = l.agent.TetherWatermark(ctx, l.ref, l.name); err == nil {
				seq, begun = w.Seq, true
			}
		}
		if begun {
			err = l.stream(ctx, ch, &seq, pause)
		}
		if ctx.Err() != nil {
			return
		}
		l.log.WarnContext(ctx, "answers wait for the daemon", logattr.Err(err), hint(err))
		l.missed()
		pause.wait(ctx)
	}
}

// stream gives sessions what comes after seq, which it advances.
func (l *Line) stream(ctx context.Context, ch Channel, seq *int64, pause *backoff) error {
	q := client.TetherQuery{Session: api.Session{Channel: l.name}, After: *seq, Stored: true, Types: wanted}
	for f, err := range l.agent.TetherStream(ctx, l.ref, q) {
		if err != nil {
			return err
		}
		pause.reset()
		if f.Seq != 0 {
			if f.Seq <= *seq {
				continue
			}
			*seq = f.Seq
		}
		if err := l.dispatch(ctx, ch, f); err != nil {
			return err
		}
	}
	return errEnded
}

// dispatch gives a frame to its session. It waits while too many are not shown yet.
func (l *Line) dispatch(ctx context.Context, ch Channel, f api.Frame) error {
	if f.Session.Channel != l.name {
		return nil // it was not asked for
	}
	durable := f.Seq != 0 && f.Type == api.FrameDone
	if f.Seq != 0 {
		if err := l.marks.add(ctx, f.Seq); err != nil {
			return err
		}
		if !durable {
			defer l.marks.done(f.Seq)
		}
	}
	drop := func(why string, err error) {
		l.log.WarnContext(ctx, "a frame of the agent's is dropped", logattr.Why(why), logattr.Err(err), logattr.Session(f.Session.ID))
		l.marks.done(f.Seq)
	}
	if !ch.Knows(f.Session.ID) {
		if durable {
			drop("not allowed", errors.New("the channel has no such session"))
		}
		return nil
	}
	e, err := decode(f)
	if err != nil {
		drop("not understood", err)
		return nil
	}
	s := l.session(f.Session.ID)
	switch {
	case s == nil && ctx.Err() != nil:
		return nil // it comes again
	case s == nil:
		l.marks.done(f.Seq) // there are too many, and the log says so
	case durable && f.Seq <= s.before:
		l.marks.done(f.Seq)
	default:
		s.push(e)
	}
	return nil
}

// missed tells all sessions that deltas may have been lost.
func (l *Line) missed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		s.missed()
	}
}

// shown says that the answer seq need not come again.
func (l *Line) shown(seq int64) { l.marks.done(seq) }

// mark tells the daemon how far the channel has read, whenever that changes.
func (l *Line) mark(ctx context.Context) {
	pause := newBackoff()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.marks.changed:
		}
		_, err := l.agent.SetTetherWatermark(ctx, l.ref, api.Watermark{Channel: l.name, Seq: l.marks.low()})
		switch {
		case err == nil:
			pause.reset()
		case ctx.Err() == nil: // the sessions' files know it too: this is no loss
			l.log.DebugContext(ctx, "the watermark waits for the daemon", logattr.Err(err))
			pause.wait(ctx)
			l.marks.tell()
		}
	}
}

// tracker knows below which seq everything has been shown, in whatever order that happens.
type tracker struct {
	*trackerState

	changed chan struct{} // has a value when low has changed
}

type trackerState struct {
	mu      sync.Mutex
	pending []pendingSeq // ascending
	reached int64
	room    chan struct{} // closed and replaced when pending shrinks
}

type pendingSeq struct {
	seq  int64
	done bool
}

func newTracker() tracker {
	return tracker{&trackerState{room: make(chan struct{})}, make(chan struct{}, 1)}
}

// add notes a seq, higher than all before, that is to be shown. It waits for room.
func (t tracker) add(ctx context.Context, seq int64) error {
	for {
		t.mu.Lock()
		room := t.room
		if len(t.pending) < maxUnshown {
			t.pending = append(t.pending, pendingSeq{seq: seq})
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// done notes that a seq has been shown. One that is not pending is none of its business.
func (t tracker) done(seq int64) {
	t.mu.Lock()
	for i := range t.pending {
		if t.pending[i].seq == seq {
			t.pending[i].done = true
		}
	}
	n := 0
	for n < len(t.pending) && t.pending[n].done {
		t.reached = t.pending[n].seq
		n++
	}
	if n > 0 {
		t.pending = t.pending[n:]
		close(t.room)
		t.room = make(chan struct{})
	}
	t.mu.Unlock()
	if n > 0 {
		t.tell()
	}
}

func (t tracker) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (t tracker) low() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reached
}

// hint is what the person who reads the log can do about err.
func hint(err error) slog.Attr { return logattr.Hint(fault.HintOf(err)) }
