package guestlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// copying is one copy: a stream that lies within one session, and is not resumed in
// another.
type copying struct {
	sess   *session
	stream *yamux.Stream
	frames *frame.Reader
	doing  string
	notes  []string
	sent   bool // everything, with the end
}

func (l *Link) openCopy(ctx context.Context, doing string, req guestproto.Copy) (*copying, error) {
	if _, err := l.live(ctx); err != nil { // it knows the guest then
		return nil, err
	}
	if !slices.Contains(l.Welcome().Abilities, guestproto.AbilityCopy) {
		return nil, fault.New(fault.Unavailable, "%s: this VM was started by a version of AegisVM without copies", doing).
			WithHint("restart the instance: aegis instance restart NAME")
	}
	if req.Changes && !slices.Contains(l.Welcome().Abilities, guestproto.AbilityChanges) {
		return nil, fault.New(fault.Unavailable, "%s: this VM was started by a version of AegisVM that cannot tell what has changed in it", doing).
			WithHint("restart the instance: aegis instance restart NAME")
	}
	sess, stream, err := l.open(ctx, doing, guestproto.StreamHeader{Kind: guestproto.StreamCopy, Copy: &req})
	if err != nil {
		return nil, err
	}
	return &copying{sess: sess, stream: stream, frames: frame.NewReader(stream), doing: doing}, nil
}

// close ends the stream. It does not wait for a guest that is paused.
func (c *copying) close() {
	_ = c.stream.SetDeadline(past)                // frees whoever reads or writes
	c.sess.spawn(func() { _ = c.stream.Close() }) // it ends with the session at the latest
}

// errWhole is the end of a copy that the guest says is complete. It is not io.EOF,
// which stands in the chain of errors of a session that ended too early.
var errWhole = errors.New("the copy is complete")

// next returns the next piece of a tar stream, errWhole in the end.
func (c *copying) next() ([]byte, error) {
	for {
		f, err := c.frames.Next()
		if err != nil {
			if errors.Is(err, frame.ErrTooLarge) {
				return nil, broken("%s: %v", c.doing, err)
			}
			return nil, c.lost(err)
		}
		switch f.Type { //nolint:exhaustive // no other comes from a guest
		case frame.Stdout:
			return f.Payload, nil
		case frame.Stderr:
			if len(c.notes) < guestproto.CopyNotes {
				c.notes = append(c.notes, clean(string(f.Payload)))
			}
		case frame.Exit:
			return nil, errWhole
		case frame.Error:
			said := &guestproto.Error{}
			if err := json.Unmarshal(f.Payload, said); err != nil {
				return nil, broken("%s: %v", c.doing, err)
			}
			return nil, guestFault(c.doing, said)
		default:
			return nil, broken("%s: frame of type %d", c.doing, f.Type)
		}
	}
}

// lost explains a stream that ended without a word of the guest.
func (c *copying) lost(err error) error {
	return fault.Wrap(fault.Unavailable, c.sess.fault(err), "%s: the connection to the VM was lost", c.doing).
		WithHint("copy again; what has arrived is whole files")
}

// CopyOut implements instance.Guest.
func (l *Link) CopyOut(ctx context.Context, req guestproto.Copy, w io.Writer) ([]string, error) {
	req.Direction = guestproto.Read
	c, err := l.openCopy(ctx, "copy out of the VM", req)
	if err != nil {
		return nil, err
	}
	defer c.close()
	stop := context.AfterFunc(ctx, func() { _ = c.stream.SetDeadline(past) })
	defer stop()
	for {
		b, err := c.next()
		switch {
		case errors.Is(err, errWhole):
			return c.notes, nil
		case ctx.Err() != nil:
			return c.notes, context.Cause(ctx)
		case err != nil:
			return c.notes, err
		}
		if _, err := w.Write(b); err != nil {
			return c.notes, fmt.Errorf("%s: %w", c.doing, err)
		}
	}
}

// CopyIn implements instance.Guest.
func (l *Link) CopyIn(ctx context.Context, req guestproto.Copy, r io.ReadCloser) ([]string, error) {
	req.Direction = guestproto.Write
	c, err := l.openCopy(ctx, "copy into the VM", req)
	if err != nil {
		return nil, err
	}
	var verdict error // what the guest says in the end
	var givenUp bool  // before that
	over, quiet := make(chan struct{}), make(chan struct{})
	started := c.sess.spawn(func() {
		defer close(quiet)
		if _, verdict = c.next(); verdict == nil {
			verdict = broken("%s: it sends an archive", c.doing)
		}
		givenUp = ctx.Err() != nil
		close(over)
		if !errors.Is(verdict, errWhole) {
			_ = r.Close() // there is nobody to read it for; that may end ctx, too
		}
	})
	if !started {
		return nil, c.lost(errSessionEnded)
	}
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	sendErr := c.send(ctx, over, r)
	if sendErr != nil {
		select {
		case <-over: // the guest knows why
			sendErr = nil
		default:
			c.close()
		}
	}
	<-quiet
	c.close()
	switch {
	case givenUp && !errors.Is(verdict, errWhole):
		return c.notes, context.Cause(ctx)
	case sendErr != nil:
		return c.notes, sendErr
	case !errors.Is(verdict, errWhole):
		return c.notes, verdict
	case !c.sent:
		return c.notes, broken("%s: it answered before the end", c.doing)
	}
	return c.notes, nil
}

// send sends r to its end, and returns when it is on its way: yamux writes cannot be
// interrupted while the guest is paused, so a goroutine of the session does them.
func (c *copying) send(ctx context.Context, over <-chan struct{}, r io.Reader) error {
	full, empty := make(chan []byte), make(chan []byte, 2)
	done := make(chan error, 1)
	for range cap(empty) {
		empty <- make([]byte, 0, frame.HeaderSize+guestproto.CopyChunk)
	}
	started := c.sess.spawn(func() {
		for b := range full {
			if _, err := c.stream.Write(b); err != nil {
				done <- c.lost(err)
				return
			}
			empty <- b
		}
		done <- nil
	})
	if !started {
		return c.lost(errSessionEnded)
	}
	err := c.chunks(ctx, r, full, empty, done, over)
	close(full)
	if err != nil {
		return err
	}
	c.sent = true
	select {
	case err = <-done:
		return err
	case <-over: // having seen the end, or with a reason
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errEarly says that the guest has ended a copy; what it said tells why.
var errEarly = errors.New("the VM takes no more")

// chunks reads r and makes frames of it, EOF last.
func (c *copying) chunks(ctx context.Context, r io.Reader, full chan<- []byte, empty <-chan []byte, done <-chan error, over <-chan struct{}) error {
	buf := make([]byte, guestproto.CopyChunk)
	for {
		// Not io.ReadFull: its ErrUnexpectedEOF is also that of a client that has gone.
		n, readErr := r.Read(buf)
		last := readErr == io.EOF // in the chain of another error it is no end
		if readErr != nil && !last {
			return fmt.Errorf("%s: %w", c.doing, readErr)
		}
		var b []byte
		select {
		case b = <-empty:
		case err := <-done:
			return err
		case <-over:
			return errEarly
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b = frame.Append(b[:0], frame.Stdin, buf[:n])
		if last {
			b = frame.Append(b, frame.EOF, nil)
		}
		select {
		case full <- b:
		case err := <-done:
			return err
		case <-over:
			return errEarly
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if last {
			return nil
		}
	}
}
