package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
)

type peerKey struct{}

// peer is who is at the other end of a connection, as the kernel says.
type peer struct {
	uid int
	err error
}

// withPeer keeps the caller's identity with the connection: it is asked for once.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := peerUID(c)
	return context.WithValue(ctx, peerKey{}, peer{uid, err})
}

func peerOf(ctx context.Context) (int, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return 0, errors.New("the connection has no peer")
	}
	return p.uid, p.err
}

func peerUID(c net.Conn) (int, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is not a unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return 0, err
	}
	uid, credErr := 0, error(nil)
	err = raw.Control(func(fd uintptr) { uid, credErr = credentials(int(fd)) })
	return uid, errors.Join(err, credErr)
}
