package guestlink

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// maxAPIConns bounds the connections to the Guest API of one session, with those that the
// host has closed and the guest has not: each is a stream that the host keeps.
const maxAPIConns = 64

// AcceptAPI implements instance.Guest. Each call keeps one stream waiting in the session
// there is; it goes on waiting in the next one.
func (l *Link) AcceptAPI(ctx context.Context) (net.Conn, error) {
	for {
		sess, err := l.live(ctx)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(l.Welcome().Abilities, guestproto.AbilityAPI) {
			return nil, fault.New(fault.Unavailable, "this VM was started by a version of AegisVM without a Guest API").
				WithHint("restart the instance: aegis instance restart NAME")
		}
		c, err := sess.acceptAPI(ctx)
		switch {
		case err == nil:
			return c, nil // not a nil *apiConn in an interface
		case errors.Is(err, errSessionEnded):
			continue
		}
		if said, ok := errors.AsType[*guestproto.Error](err); ok {
			err = guestFault("accept a connection of the VM", said)
		}
		return nil, err
	}
}

// acceptAPI waits until the guest makes a stream a connection.
func (s *session) acceptAPI(ctx context.Context) (*apiConn, error) {
	select {
	case s.apis <- struct{}{}:
	case <-s.done:
		return nil, s.fault(nil)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stream, _, err := s.openOn(ctx, s.waiters, guestproto.StreamHeader{Kind: guestproto.StreamAPI})
	if err != nil {
		<-s.apis
		return nil, err
	}
	return &apiConn{Stream: stream, sess: s}, nil
}

// apiConn is a connection of a program in the guest to the Guest API.
type apiConn struct {
	*yamux.Stream

	sess *session
	once sync.Once
}

// Close ends the connection. It does not wait for the guest; what the guest still sends
// is thrown away.
func (c *apiConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.SetDeadline(past) // frees whoever reads or writes
		c.sess.spawn(func() {     // or the session is over, and all its streams
			_ = c.Stream.Close()
			_ = c.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, c.Stream) // to its end, or the session's
			<-c.sess.apis
		})
	})
	return err
}
