package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// relay copies between the guest and the outside until both directions have ended,
// and passes the end of each on as a half-close. An error of one, or the end of ctx,
// resets both.
func relay(ctx context.Context, in *conn, out net.Conn) {
	reset := sync.OnceFunc(func() {
		in.Abort()
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
	for s := newSource(src); ; {
		b, n, err := s.next()
		if n > 0 {
			if _, werr := dst.Write(b[:n]); werr != nil {
				err = werr
			}
		}
		b.release()
		if errors.Is(err, io.EOF) || n == 0 && err == nil {
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
