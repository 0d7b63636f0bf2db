package nfs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// maxParallel is how many requests of one connection are worked on at a time. The
	// next one is not read before.
	maxParallel = 64
	// maxFragments bounds the pieces of one record. Kernels send one.
	maxFragments = 16
)

// conn is one connection.
type conn struct {
	s     *Server
	nc    net.Conn
	r     *bufio.Reader
	slots chan struct{}
	work  sync.WaitGroup

	// out is held while a reply goes out: its order on the stream is what it guards, so
	// it is held over the write.
	out sync.Mutex
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{s: s, nc: nc, r: bufio.NewReaderSize(nc, 64<<10), slots: make(chan struct{}, maxParallel)}
}

// serve answers requests until the connection ends.
func (c *conn) serve() {
	c.work.Go(c.next)
	c.work.Wait()
	_ = c.nc.Close() // what was written has been, or cannot be
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	delete(c.s.conns, c)
}

// past is a deadline that ends what is blocked.
var past = time.Unix(1, 0)

// drain has requests in work answered, for that long, and reads no more.
func (c *conn) drain(d time.Duration) {
	_ = c.nc.SetReadDeadline(past)               // the connection may have ended
	_ = c.nc.SetWriteDeadline(time.Now().Add(d)) // as above
}

// next reads one request, lets another goroutine wait for the one after it, and works
// on its own: between the arrival of a request and its work no goroutine is waited for.
func (c *conn) next() {
	c.slots <- struct{}{} // never for ever: all that hold one end
	defer func() { <-c.slots }()
	req, buf, err := c.read()
	if err != nil {
		if !quiet(err) {
			c.s.complain("connection ended", logattr.Err(err))
			_ = c.nc.Close() // there is no telling where the next record begins
		}
		return
	}
	c.work.Go(c.next)
	r := c.s.answer(req)
	c.s.buffers.put(buf)
	if r != nil {
		c.write(r)
	}
}

// quiet reports whether err is how connections end.
func quiet(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok { // reset, or past its deadline
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed)
}

var errRecord = errors.New("a record that is too long, or in too many fragments")

// read returns the next record, and the buffer that it stands in.
func (c *conn) read() ([]byte, *buffer, error) {
	var buf *buffer
	n := 0
	for range maxFragments {
		var mark [recordMark]byte
		if _, err := io.ReadFull(c.r, mark[:]); err != nil {
			c.giveBack(buf)
			return nil, nil, err
		}
		m := binary.BigEndian.Uint32(mark[:])
		size := int(m &^ lastMark)
		if n+size > maxRequest {
			c.giveBack(buf)
			return nil, nil, errRecord
		}
		var err error
		if buf, err = c.grow(buf, n, size); err != nil {
			return nil, nil, err
		}
		if _, err := io.ReadFull(c.r, buf.b[n:n+size]); err != nil {
			c.giveBack(buf)
			return nil, nil, err
		}
		if n += size; m&lastMark != 0 {
			return buf.b[:n], buf, nil
		}
	}
	c.giveBack(buf)
	return nil, nil, errRecord
}

// grow returns a buffer with the n bytes of buf and room for size more.
func (c *conn) grow(buf *buffer, n, size int) (*buffer, error) {
	if buf != nil && n+size <= len(buf.b) {
		return buf, nil
	}
	bigger := c.s.buffers.get(n+size, c.s.ctx.Done())
	if bigger == nil {
		c.giveBack(buf)
		return nil, net.ErrClosed
	}
	if buf != nil {
		copy(bigger.b, buf.b[:n])
		c.giveBack(buf)
	}
	return bigger, nil
}

func (c *conn) giveBack(buf *buffer) {
	if buf != nil {
		c.s.buffers.put(buf)
	}
}

// write sends a reply.
func (c *conn) write(r *reply) {
	c.out.Lock()
	_, err := c.nc.Write(r.record())
	c.out.Unlock()
	if r.buf != nil {
		c.s.buffers.put(r.buf)
	}
	if err != nil {
		_ = c.nc.Close() // the reader ends, and so the connection; the client asks again
	}
	r.finish()
}
