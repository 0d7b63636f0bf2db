package router

import (
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxEarly is how much of what a client says before it is connected is kept; more
// waits in its socket.
const maxEarly = 16 << 10

// early hears a client that is not connected to its guest yet: so one that has gone is
// noticed. One that has only closed its writing half has not gone.
type early struct {
	conn *net.TCPConn
	said []byte
	done chan struct{}
}

var errClientLeft = errors.New("the client left")

// hear begins to read; left is called if the client resets the connection.
func hear(conn *net.TCPConn, left func(error)) *early {
	e := &early{conn: conn, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		if e.listen() {
			left(errClientLeft)
		}
	}()
	return e
}

// listen reads until it is stopped, and reports whether the client left before.
func (e *early) listen() bool {
	buf := make([]byte, maxEarly)
	for len(e.said) < maxEarly {
		n, err := e.conn.Read(buf[len(e.said):])
		e.said = buf[:len(e.said)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			ne, ok := errors.AsType[net.Error](err)
			return !ok || !ne.Timeout()
		}
	}
	return awaitReset(e.conn)
}

// stop ends the hearing, and returns what was heard.
func (e *early) stop() []byte {
	_ = e.conn.SetReadDeadline(past)
	<-e.done
	_ = e.conn.SetReadDeadline(time.Time{}) // fails only where reading will
	return e.said
}

// hesitation is what a client may take to begin to speak, when all that is left to do
// is to tell it in its own words that there is nobody.
const hesitation = 250 * time.Millisecond

// firstWords returns what a client says that has not been heard yet.
func firstWords(conn *net.TCPConn) []byte {
	buf := make([]byte, maxEarly)
	_ = conn.SetReadDeadline(time.Now().Add(hesitation)) // fails only where reading will
	n, _ := conn.Read(buf)                               // none is an answer, too
	return buf[:n]
}

// awaitReset waits until a connection breaks, without reading from it. It reports
// false when a deadline for reading, or a Close, ends the wait.
func awaitReset(conn *net.TCPConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	broken := false
	_ = raw.Read(func(fd uintptr) bool { // fails when the wait ends otherwise
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		broken = err != nil || errno != 0
		return broken // else until the socket has news
	})
	return broken
}
