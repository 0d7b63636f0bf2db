package netstack

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// chunk is what one read returns at most: more than a segment of the guest's wire,
// and than a datagram.
type chunk [64 << 10]byte

var chunks64K = sync.Pool{New: func() any { return new(chunk) }}

// source reads from a connection. It has memory for what it reads only while there is
// something to read: most connections of most guests are silent.
type source struct {
	conn net.Conn
	raw  syscall.RawConn // of a socket, or nil
}

func newSource(c net.Conn) source {
	s := source{conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn() // which fails for a closed connection, as reads will
	}
	return s
}

// next reads once. The caller gives b, which may be nil, back with release.
func (s source) next() (b *chunk, n int, err error) {
	if s.raw != nil {
		return readSocket(s.raw)
	}
	if guest, ok := s.conn.(*conn); ok {
		guest.await()
	}
	b = chunks64K.Get().(*chunk) //nolint:forcetypeassert // the pool has no others
	n, err = s.conn.Read(b[:])
	return b, n, err
}

func (b *chunk) release() {
	if b != nil {
		chunks64K.Put(b)
	}
}

// readSocket reads once from a socket, into memory that it takes when the socket is
// readable. It tells the end of a stream like an empty datagram: by 0, without error.
func readSocket(raw syscall.RawConn) (b *chunk, n int, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		b = chunks64K.Get().(*chunk) //nolint:forcetypeassert // the pool has no others
		for {
			n, failed = syscall.Read(int(fd), b[:])
			if !errors.Is(failed, syscall.EINTR) {
				break
			}
		}
		if errors.Is(failed, syscall.EAGAIN) {
			b.release()
			b = nil
			return false
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return b, max(n, 0), err
}
