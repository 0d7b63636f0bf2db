package guestlink

import (
	"context"
	"errors"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// maxInputChunk bounds a Stdin frame, so that signals and acknowledgements do not
// wait behind much.
const maxInputChunk = 32 << 10

// leg is the part of an attachment that lies in one session: a stream, its reader
// (whoever calls Recv) and its writer.
type leg struct {
	sess   *session
	stream *yamux.Stream
	reader *frame.Reader
	gone   chan struct{} // closed by drop
	stop   func() bool   // of what frees Recv when the attachment is closed

	// Only the writer touches these: what it has sent on this leg.
	input   uint64
	eof     bool
	resizes int
	acked   uint64
}

// connect makes a leg in the session there is, or in the next one.
func (a *attachment) connect(ctx context.Context) error {
	header := guestproto.StreamHeader{Kind: guestproto.StreamAttach, Exec: a.exec, Offset: a.log}
	for {
		sess, err := a.link.live(ctx)
		if err != nil {
			return err
		}
		stream, reply, err := sess.open(ctx, header)
		if errors.Is(err, errSessionEnded) {
			continue
		}
		if said, ok := errors.AsType[*guestproto.Error](err); ok {
			return guestFault("", said)
		}
		if err != nil {
			return err
		}
		l := a.newLeg(sess, stream)
		if err := a.resume(l, reply); err != nil {
			l.drop()
			return err
		}
		if !sess.spawn(func() { a.write(l) }) {
			l.stop()
			continue // it ended just now
		}
		a.leg = l
		return nil
	}
}

func (a *attachment) newLeg(sess *session, stream *yamux.Stream) *leg {
	return &leg{
		sess: sess, stream: stream, reader: frame.NewReader(stream), gone: make(chan struct{}),
		stop: context.AfterFunc(a.ctx, func() { _ = stream.SetReadDeadline(past) }),
	}
}

// resume checks that both ends mean the same place in both directions.
func (a *attachment) resume(l *leg, reply guestproto.StreamReply) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reply.Offset != a.log {
		return broken("it has lost output of %s: asked for %d, it has %d", a.exec, a.log, reply.Offset)
	}
	if reply.Stdin > a.in.end() {
		if a.in.end() > 0 {
			return broken("it has more input of %s than was sent", a.exec)
		}
		a.in.base = reply.Stdin // sent by a daemon before this one
	}
	l.input = max(reply.Stdin, a.in.base)
	if a.size != nil {
		l.resizes = a.resizes - 1 // sizes are told again: nothing is lost by it
	}
	return nil
}

// drop ends a leg. It does not wait for the guest.
func (l *leg) drop() {
	select {
	case <-l.gone:
	default:
		close(l.gone)
	}
	l.stop()
	_ = l.stream.SetDeadline(past) // frees reader and writer
}

// write sends what there is to send until the leg ends. Nothing else writes to the
// stream: yamux cannot be interrupted while the guest is paused, callers can.
func (a *attachment) write(l *leg) {
	defer l.stream.Close() //nolint:errcheck // the leg ends either way
	for {
		a.mu.Lock()
		b, last := a.next(l)
		changed := a.changed
		a.mu.Unlock()
		switch {
		case len(b) > 0:
			if _, err := l.stream.Write(b); err != nil {
				return // Recv meets the same end
			}
			continue
		case last:
			return
		}
		select {
		case <-changed:
		case <-a.ctx.Done():
			a.farewell(l)
			return
		case <-l.gone:
			return
		case <-l.sess.done:
			return
		}
	}
}

// farewell tells the guest how much of the output was taken, so that a client that
// comes later goes on behind it.
func (a *attachment) farewell(l *leg) {
	if taken := a.kept(); taken > l.acked {
		_, _ = l.stream.Write(ackFrame(taken)) // else the next handshake says it
	}
}

func ackFrame(off uint64) []byte {
	return frame.Append(nil, frame.Ack, frame.EncodeOffset(off))
}

// next returns the frames to send now, and whether the leg is finished once there
// are none. The caller holds mu.
func (a *attachment) next(l *leg) (b []byte, last bool) {
	for _, sig := range a.signals {
		b = frame.Append(b, frame.Signal, []byte{sig})
	}
	if len(a.signals) > 0 {
		a.signals = nil
		a.wake() // there is room for more
	}
	if l.resizes != a.resizes {
		l.resizes = a.resizes
		b = frame.Append(b, frame.Resize, a.size.Encode())
	}
	all := a.ended && a.taken == a.log // the Exit frame is taken too
	if a.taken-l.acked >= ackEvery || all && a.taken > l.acked {
		l.acked = a.taken
		b = append(b, ackFrame(a.taken)...)
	}
	if a.ended {
		return b, all
	}
	if l.input = max(l.input, a.in.base); l.input < a.in.end() {
		chunk := a.in.from(l.input, maxInputChunk)
		l.input += uint64(len(chunk))
		return frame.Append(b, frame.Stdin, chunk), false
	}
	if a.eof && !l.eof {
		l.eof = true
		b = frame.Append(b, frame.EOF, nil)
	}
	return b, false
}
