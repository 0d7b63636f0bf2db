package instance

import (
	"context"
	"net"
	"strconv"
)

// Visit wakes an instance and holds it awake until Release, like Awake, for the host's
// own business with a program in it. It is no connection of a client.
func (s *Set) Visit(ctx context.Context, ref, owner string) (*Awake, error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return a.awake(ctx, owner, false)
}

// DialLocal connects to a port on which a program listens at the guest's own 127.0.0.1,
// over the link. One attempt is made; a port on which nothing listens is Unavailable. The
// connection ends with the Awake at the latest.
func (w *Awake) DialLocal(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, done := joined(ctx, w.released)
	defer done()
	c, err := w.live.guest.Dial(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case w.live.endedBy(err):
		return nil, w.actor.set.refuse(w.actor, w.live.cause())
	default:
		return nil, err
	}
	v := &visit{Conn: c}
	v.leave = context.AfterFunc(w.released, func() { _ = c.Close() }) //nolint:contextcheck // it outlives the call; nobody waits for the error
	return v, nil
}

// visit is a connection that ends with the hold that it was made under.
type visit struct {
	net.Conn

	leave func() bool
}

// Close ends the connection.
func (v *visit) Close() error {
	v.leave()
	return v.Conn.Close()
}
