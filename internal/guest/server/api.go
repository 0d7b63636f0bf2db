package server

import (
	"context"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// acceptPause is waited after a connection could not be taken: the machine is out of
// descriptors, or memory.
const acceptPause = 100 * time.Millisecond

// listenAPI begins to take connections to the Guest API, one at a time: the next is
// taken when a stream of the host's has that one. Others wait in the kernel, whether or
// not a host is there. The returned function ends it.
func (s *Server) listenAPI() (stop func()) {
	if s.conf.API == nil {
		return func() {}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for s.ctx.Err() == nil {
			conn, err := s.conf.API.Accept()
			if err != nil {
				s.pause(acceptPause)
				continue
			}
			select {
			case s.apis <- conn:
			case <-s.ctx.Done():
				_ = conn.Close() // nobody will answer
			}
		}
	})
	return func() {
		_ = s.conf.API.Close() // ends Accept
		wg.Wait()
	}
}

func (s *Server) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// api makes a stream of the host's the next connection to the Guest API.
func (s *session) api(ctx context.Context, stream *yamux.Stream) {
	if s.conf.API == nil {
		_ = refuse(stream, guestproto.CodeUnsupported, "a Guest API")
		return
	}
	var conn net.Conn
	select {
	case conn = <-s.apis:
	case <-ctx.Done():
		return
	}
	defer conn.Close() //nolint:errcheck // both directions have ended
	if accept(stream, guestproto.StreamReply{}) != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := io.Copy(stream, conn)
		_ = stream.Close() // what the client says is over, or its connection is
		if err != nil {
			_ = conn.SetDeadline(past)
		}
	})
	_, _ = io.Copy(conn, stream) // to the host's end, which is that of the connection
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(farewell))
	if ctx.Err() != nil {
		_ = conn.SetDeadline(past)
	}
}

// farewell is what a client has to take the end of an answer before its connection is
// closed: one that keeps connections for later requests does not look.
const farewell = time.Second
