package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// dialTimeout bounds a connection attempt inside the guest. Loopback answers at
// once; an address that nobody has would hang.
const dialTimeout = 10 * time.Second

var past = time.Unix(1, 0)

// dial connects the stream to an address inside the guest and copies both ways,
// half-closes included.
func (s *session) dial(ctx context.Context, stream *yamux.Stream, addr string) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		code := guestproto.CodeInvalid
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, context.DeadlineExceeded) {
			code = guestproto.CodeUnavailable
		}
		_ = refuse(stream, code, err.Error())
		return
	}
	defer conn.Close() //nolint:errcheck // both directions have ended
	if accept(stream, guestproto.StreamReply{}) != nil {
		return
	}
	relay(ctx, stream, conn)
}

// relay copies between a stream that was accepted and a connection, until both
// directions have ended or ctx does.
func relay(ctx context.Context, stream *yamux.Stream, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		_, err := io.Copy(stream, conn)
		if err == nil {
			err = stream.Close() // a half-close: reading goes on
		}
		if err != nil {
			_ = conn.SetDeadline(past)
		}
	})
	_, err := io.Copy(conn, stream)
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		err = tcp.CloseWrite()
	}
	if err != nil {
		_ = stream.SetReadDeadline(past)
		_ = stream.Close()
		_ = conn.SetDeadline(past)
	}
}
