package guestlink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// An attempt to open a session ends after minOpen, the next ones after twice as
// long each, up to maxOpen. Dialing again is what helps when the guest's end is
// fine and the VMM's is not: QEMU 7.2 forgets to let a port write again whose
// client went away in the middle of a write (the port is throttled after the close
// that lifts the throttle), until that client's successor goes too. And where the
// only connection is taken by somebody else, QEMU accepts another and never says a
// byte. A guest that boots or is paused loses nothing by it.
const (
	minOpen = 300 * time.Millisecond
	maxOpen = 10 * time.Second
)

// maxStale bounds what is thrown away before an echo. What queues hold at a
// reconnect is about 1 MB.
const maxStale = 64 << 20

var errNoEcho = errors.New("the guest does not answer")

// open opens a session on conn: it repeats the opening until the guest echoes it.
// It returns what came behind the echo. When ctx ends it closes conn.
func open(ctx context.Context, conn net.Conn, magic guestproto.Magic, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoEcho)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	opening := guestproto.Opening(magic, guestproto.NewNonce())
	found := make(chan struct{})
	written := make(chan struct{})
	go func() {
		defer close(written)
		repeat(ctx, conn, opening, found)
	}()
	rest, err := discardUntil(conn, opening)
	close(found)
	if err != nil {
		_ = conn.Close() // frees the writer
	}
	<-written // an opening that was begun is finished before yamux writes
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return rest, err
}

func repeat(ctx context.Context, conn net.Conn, opening []byte, found <-chan struct{}) {
	tick := time.NewTicker(guestproto.HelloInterval)
	defer tick.Stop()
	for {
		if _, err := conn.Write(opening); err != nil {
			return // the reader meets the same end
		}
		select {
		case <-tick.C:
		case <-found:
			return
		case <-ctx.Done():
			return
		}
	}
}

// discardUntil reads until mark has come and returns what followed it.
func discardUntil(conn net.Conn, mark []byte) ([]byte, error) {
	buf := make([]byte, 64<<10)
	kept, total := 0, 0
	for total < maxStale {
		n, err := conn.Read(buf[kept:])
		total += n
		have := buf[:kept+n]
		if _, rest, ok := bytes.Cut(have, mark); ok {
			return bytes.Clone(rest), nil
		}
		if err != nil {
			return nil, fmt.Errorf("open a session: %w", err)
		}
		kept = copy(buf, have[max(0, len(have)-len(mark)+1):])
	}
	return nil, fmt.Errorf("open a session: %w: only noise", errNoEcho)
}
