package router

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// maxEarly is how much of what a client says before it is connected is kept; more
// waits in its socket.
const maxEarly = 16 << 10

var past = time.Unix(1, 0)

// early hears a client that is not connected to its guest yet: so one that has gone is
// noticed. One that has only closed its writing half has not gone.
type early struct {
	conn net.Conn
	said []byte
	done chan struct{}
}

var errClientLeft = errors.New("the client left")

// hear begins to read; left is called if the client resets the connection.
func hear(conn net.Conn, left func(error)) *early {
	e := &early{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		buf := make([]byte, maxEarly)
		for len(e.said) < maxEarly {
			n, err := conn.Read(buf[len(e.said):])
			e.said = buf[:len(e.said)+n]
			if err != nil {
				if ne, ok := errors.AsType[net.Error](err); !errors.Is(err, io.EOF) && (!ok || !ne.Timeout()) {
					left(errClientLeft)
				}
				return
			}
		}
	}()
	return e
}

// stop ends the reading; said is what was read.
func (e *early) stop() {
	_ = e.conn.SetReadDeadline(past)
	<-e.done
	_ = e.conn.SetReadDeadline(time.Time{}) // fails only where reading will
}

// copyBuffers are reused: a relay needs two, and lives as long as its client likes.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// relay copies both ways, what the client has said first, until both directions have
// ended. It reports whether both ended in good order.
func relay(client, guest instance.GuestConn, said []byte) bool {
	ok := make(chan bool, 1)
	go func() {
		var from io.Reader = client
		if len(said) > 0 {
			from = io.MultiReader(bytes.NewReader(said), client)
		}
		ok <- pass(guest, from, client)
	}()
	answered := pass(client, guest, guest)
	return <-ok && answered
}

// pass copies from one end to the other and passes the half-close on. When that fails
// both ends are of no use any more.
func pass(to instance.GuestConn, from io.Reader, fromConn net.Conn) bool {
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	_, err := io.CopyBuffer(onlyWriter{to}, onlyReader{from}, *buf)
	copyBuffers.Put(buf)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		_ = fromConn.SetDeadline(past) // frees the other direction
		_ = to.SetDeadline(past)
	}
	return err == nil
}

// They hide ReadFrom and WriteTo, which would allocate buffers of their own.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
