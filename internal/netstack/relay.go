package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// relayBuffer fits a segment of the guest's wire.
const relayBuffer = 64 << 10

var relayBuffers = sync.Pool{New: func() any { return new([relayBuffer]byte) }}

// relay copies between the guest and the outside until both directions have ended,
// and passes the end of each on as a half-close. An error of one, or the end of ctx,
// resets both.
func relay(ctx context.Context, in *conn, out net.Conn) {
	reset := sync.OnceFunc(func() {
		in.abort()
		abort(out)
	})
	stop := context.AfterFunc(ctx, reset)
	var wg sync.WaitGroup
	wg.Go(func() {
		if pump(in, out) != nil {
			reset()
		}
	})
	if pump(out, in) != nil {
		reset()
	}
	wg.Wait()
	if !stop() {
		reset() // waits for the other call
	}
	_ = in.Close()  // never fails
	_ = out.Close() // both directions have ended
}

// pump copies from src to dst until src ends, and then closes dst for writing.
func pump(dst, src net.Conn) error {
	buf := relayBuffers.Get().(*[relayBuffer]byte) //nolint:forcetypeassert // the pool has no others
	defer relayBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		// A peer that has already ended the other direction may be gone altogether.
		_ = half.CloseWrite()
		return nil
	}
	return dst.Close() // it cannot tell the difference
}
