package guestlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
)

const (
	// ackEvery is how much output may be taken and not acknowledged. It is small
	// beside the smallest log of a guest, which would otherwise fill for good.
	ackEvery = 16 << 10
	// maxSignals bounds the signals that wait for a session.
	maxSignals = 64
	// maxFruitless is how often a guest may end a stream without a frame on it.
	maxFruitless = 3
	// maxNotices bounds what a guest can say to the user beside the output.
	maxNotices = 1
)

// attachment implements instance.Attachment over the streams of many sessions.
type attachment struct {
	link   *Link
	exec   guestproto.ExecID
	ctx    context.Context //nolint:containedctx // the attachment's life; Close ends it
	cancel context.CancelCauseFunc

	// Only Recv touches these.
	leg       *leg
	fruitless int
	notices   int
	err       error // what every further Recv returns

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when one of the below changes
	log     uint64        // offset behind the last frame that Recv returned
	taken   uint64        // offset up to which the consumer has the log
	ended   bool          // no input can be sent any more
	in      input
	eof     bool // the input ends behind in
	size    *frame.Winsize
	resizes int // how often size was set
	signals []byte
}

// Attach implements instance.Guest.
func (l *Link) Attach(ctx context.Context, exec guestproto.ExecID, offset uint64) (instance.Attachment, error) {
	a := &attachment{link: l, exec: exec, log: offset, taken: offset, changed: make(chan struct{})}
	a.ctx, a.cancel = context.WithCancelCause(l.ctx)
	l.mu.Lock()
	if l.attached[exec] != nil {
		l.mu.Unlock()
		a.cancel(nil)
		return nil, fault.New(fault.Conflict, "process %s has a client already", exec)
	}
	l.attached[exec] = a
	if _, known := l.owned[exec]; !known {
		l.owned[exec] = offset
	}
	l.mu.Unlock()
	if err := a.connect(ctx); err != nil {
		_ = a.Close() // never fails
		if fault.KindOf(err) == fault.NotFound {
			l.disown(exec)
		}
		return nil, fmt.Errorf("attach to %s: %w", exec, err)
	}
	return a, nil
}

// kept returns the offset up to which the consumer has the log.
func (a *attachment) kept() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.taken
}

// Offset implements instance.Attachment.
func (a *attachment) Offset() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log
}

// Recv implements instance.Attachment. Asking for the next frame says that the one
// before has been dealt with.
func (a *attachment) Recv() (frame.Frame, error) {
	a.update(func() { a.taken = a.log })
	for a.err == nil {
		// What has come before the link failed is still there to be read.
		if cause := context.Cause(a.ctx); cause != nil && (a.leg == nil || errors.Is(cause, errDetached)) {
			return frame.Frame{}, a.closed(cause)
		}
		if a.leg == nil {
			if err := a.connect(a.ctx); err != nil {
				a.fail(err)
				break
			}
		}
		f, err := a.leg.reader.Next()
		if err != nil {
			a.lost(err)
			continue
		}
		a.fruitless = 0
		deliver, err := a.take(f)
		if f.Type == frame.Notice {
			f = noticeFrame()
		}
		if err != nil {
			a.fail(err)
			break
		}
		if deliver {
			return f, nil
		}
	}
	if cause := context.Cause(a.ctx); cause != nil && !errors.Is(a.err, io.EOF) {
		return frame.Frame{}, a.closed(cause)
	}
	if errors.Is(a.err, io.EOF) {
		a.finish()
	}
	return frame.Frame{}, a.err
}

// closed explains the end of an attachment: its own, or that of the link.
func (a *attachment) closed(cause error) error {
	if errors.Is(cause, errDetached) {
		return cause
	}
	a.link.mu.Lock()
	defer a.link.mu.Unlock()
	if a.link.err != nil {
		cause = a.link.err
	}
	return asFault(cause)
}

var errDetached = fault.New(fault.Conflict, "detached from the process")

// take deals with one frame from the guest. It reports whether the frame is for
// the consumer.
func (a *attachment) take(f frame.Frame) (deliver bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch f.Type { //nolint:exhaustive // the others go the other way
	case frame.Stdout, frame.Stderr:
		a.log += frame.HeaderSize + uint64(len(f.Payload))
		return len(f.Payload) > 0, nil
	case frame.Notice:
		a.log += frame.HeaderSize + uint64(len(f.Payload))
		a.notices++
		return a.notices <= maxNotices, nil
	case frame.Exit:
		if _, err := f.Status(); err != nil {
			return false, broken("%v", err)
		}
		a.log += frame.HeaderSize + uint64(len(f.Payload))
		a.ended = true
		a.err = io.EOF
		a.wake()
		return true, nil
	case frame.Ack:
		off, err := f.Offset()
		if err != nil || !a.in.ack(off) {
			return false, broken("it acknowledged input that was not sent")
		}
		a.wake()
		return false, nil
	}
	return false, broken("a frame of type %d", f.Type)
}

// Send implements instance.Attachment.
func (a *attachment) Send(f frame.Frame) error {
	switch f.Type { //nolint:exhaustive // the others go the other way
	case frame.Stdin:
		for b := f.Payload; len(b) > 0; {
			err := a.when(func() bool { return a.eof || a.in.room() > 0 }, func() {
				if a.eof {
					b = nil // nobody will read it
					return
				}
				b = b[a.in.add(b):]
			})
			if err != nil {
				return err
			}
		}
		return nil
	case frame.EOF:
		return a.when(nil, func() { a.eof = true })
	case frame.Resize:
		size, err := f.Winsize()
		if err != nil {
			return err
		}
		return a.when(nil, func() { a.size, a.resizes = &size, a.resizes+1 })
	case frame.Signal:
		if len(f.Payload) != 1 {
			return fault.New(fault.Invalid, "signal frame of %d bytes", len(f.Payload))
		}
		return a.when(func() bool { return len(a.signals) < maxSignals },
			func() { a.signals = append(a.signals, f.Payload[0]) })
	}
	return fault.New(fault.Invalid, "frame of type %d cannot be sent to a process", f.Type)
}

// when runs do once cond (nil is always) holds.
func (a *attachment) when(cond func() bool, do func()) error {
	for {
		a.mu.Lock()
		switch {
		case a.ended:
			a.mu.Unlock()
			return fault.Wrap(fault.Conflict, io.ErrClosedPipe, "the process has ended")
		case a.ctx.Err() != nil:
			a.mu.Unlock()
			return a.closed(context.Cause(a.ctx))
		case cond == nil || cond():
			do()
			a.wake()
			a.mu.Unlock()
			return nil
		}
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
		case <-a.ctx.Done():
		}
	}
}

// Close implements instance.Attachment. It does not wait for the guest.
func (a *attachment) Close() error {
	a.cancel(errDetached)
	a.release()
	return nil
}

// finish ends an attachment whose consumer has all of the log: the process is no
// longer owned, as nothing of it is left.
func (a *attachment) finish() {
	a.link.disown(a.exec)
	a.release()
	a.cancel(errDetached) // the writer says farewell and ends
}

func (a *attachment) release() {
	a.link.mu.Lock()
	defer a.link.mu.Unlock()
	if a.link.attached[a.exec] == a {
		delete(a.link.attached, a.exec)
		if _, owned := a.link.owned[a.exec]; owned {
			a.link.owned[a.exec] = a.kept()
		}
	}
}

// fail ends the attachment with err.
func (a *attachment) fail(err error) {
	a.err = err
	a.update(func() { a.ended = true })
	if a.leg != nil {
		a.leg.drop()
		a.leg = nil
	}
}

// lost gives up a leg that broke.
func (a *attachment) lost(err error) {
	a.leg.drop()
	if a.leg.sess.ended() {
		a.leg = nil
		return
	}
	if a.fruitless++; a.fruitless > maxFruitless {
		a.fail(broken("it ends the stream of %s: %v", a.exec, err))
	}
	a.leg = nil
}

func (a *attachment) update(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.wake()
}

// wake tells the writer and Send that something has changed. The caller holds mu.
func (a *attachment) wake() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// input is the window of stdin: the bytes that the guest has not acknowledged.
type input struct {
	base uint64 // acknowledged
	buf  []byte // from base on
}

func (in *input) room() int { return guestproto.StdinWindow - len(in.buf) }

func (in *input) end() uint64 { return in.base + uint64(len(in.buf)) }

// add takes as much of b as there is room for.
func (in *input) add(b []byte) int {
	n := min(len(b), in.room())
	in.buf = append(in.buf, b[:n]...)
	return n
}

// from returns at most limit bytes from off on.
func (in *input) from(off uint64, limit int) []byte {
	b := in.buf[off-in.base:]
	return slices.Clone(b[:min(len(b), limit)])
}

// ack drops what the guest has. It reports whether off makes sense; an older one
// does, from before a reconnect.
func (in *input) ack(off uint64) bool {
	if off > in.end() {
		return false
	}
	if off > in.base {
		in.buf = in.buf[off-in.base:]
		in.base = off
	}
	return true
}
