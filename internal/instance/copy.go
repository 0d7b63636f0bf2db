package instance

import (
	"context"
	"io"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// CopyOut writes files of an instance to w, as a tar stream, and returns notes on
// what was left out. It wakes the instance and holds it awake meanwhile. Nothing is
// written to w before the files have been found.
func (s *Set) CopyOut(ctx context.Context, ref string, req guestproto.Copy, w io.Writer) (notes []string, err error) {
	return s.copy(ctx, ref, func(g Guest) ([]string, error) { return g.CopyOut(ctx, req, w) })
}

// CopyIn unpacks a tar stream in an instance, like CopyOut. It closes r when the
// instance takes no more of it: that must free a Read in progress.
func (s *Set) CopyIn(ctx context.Context, ref string, req guestproto.Copy, r io.ReadCloser) (notes []string, err error) {
	return s.copy(ctx, ref, func(g Guest) ([]string, error) { return g.CopyIn(ctx, req, r) })
}

func (s *Set) copy(ctx context.Context, ref string, do func(Guest) ([]string, error)) ([]string, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	h, l, err := a.hold(ctx, Acquire, "cp")
	if err != nil {
		return nil, s.wakeError(a, err)
	}
	defer a.release(h)
	notes, err := do(l.guest)
	if err != nil && ctx.Err() == nil && fault.KindOf(err) == fault.Unavailable {
		// A link that breaks is seen before the end of its machine, which says more.
		select {
		case <-l.gone:
			err = s.explain(l.cause())
		case <-time.After(endPatience):
		}
	}
	return notes, err
}

// endPatience bounds the wait for the end of a machine whose link broke.
const endPatience = time.Second
