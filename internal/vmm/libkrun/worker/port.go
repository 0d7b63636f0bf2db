package worker

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// port joins a stream of the guest's to a listening socket, whose client comes and
// goes. There is one at a time: a new one takes the place of the old, as only a dead
// daemon leaves one behind.
type port struct {
	guest  net.Conn
	socket net.Listener
	// frames says that the streams consist of frames, each after its length as u32
	// big-endian. Then only whole ones are passed on, and what the guest sends is dropped
	// while there is no client, as by a card without a cable. A stream of bytes waits
	// instead.
	frames bool

	mu      sync.Mutex
	changed *sync.Cond // of client and closed
	client  net.Conn
	closed  bool
	toGuest sync.Mutex // held while one piece is written to the guest
}

func newPort(guest net.Conn, socket net.Listener, frames bool) *port {
	p := &port{guest: guest, socket: socket, frames: frames}
	p.changed = sync.NewCond(&p.mu)
	return p
}

// run serves the port until its socket and the guest's stream are closed.
func (p *port) run() {
	var all sync.WaitGroup
	all.Go(func() {
		if p.frames {
			p.sendFrames()
		} else {
			p.sendBytes()
		}
	})
	for {
		c, err := p.socket.Accept()
		if err != nil {
			break
		}
		p.replace(c)
		all.Go(func() {
			if p.frames {
				p.receiveFrames(c)
			} else {
				p.receiveBytes(c)
			}
			p.drop(c)
		})
	}
	p.end()
	all.Wait()
}

func (p *port) replace(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeConn(p.client)
	p.client = c
	p.changed.Broadcast()
}

// drop ends a connection, which may be the client's.
func (p *port) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeConn(c)
	if p.client == c {
		p.client = nil
	}
}

func (p *port) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	closeConn(p.client)
	closeConn(p.guest)
	p.changed.Broadcast()
}

func closeConn(c net.Conn) {
	if c != nil {
		_ = c.Close() // whoever is at the other end finds out
	}
}

// current returns the client, or nil.
func (p *port) current() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client
}

// await waits for a client. It returns nil when the port has ended.
func (p *port) await() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.client == nil && !p.closed {
		p.changed.Wait()
	}
	return p.client
}

const (
	pieceSize = 64 << 10
	// batchSize is how many bytes of frames go to the client in one write at most, but for
	// the last one.
	batchSize = 256 << 10

	lengthSize = 4
	minFrame   = 14 // an Ethernet header
	// maxFrame is what libkrun has room for (MAX_BUFFER_SIZE less its header); it ends the
	// process over a longer one.
	maxFrame = 65550
)

func (p *port) sendBytes() {
	buf := make([]byte, pieceSize)
	for p.await() != nil {
		n, err := p.guest.Read(buf)
		if err != nil {
			return
		}
		c := p.await()
		if c == nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			p.drop(c) // the next client asks the guest to begin anew
		}
	}
}

func (p *port) receiveBytes(c net.Conn) {
	buf := make([]byte, pieceSize)
	for {
		n, err := c.Read(buf)
		if err != nil || p.write(buf[:n]) != nil {
			return
		}
	}
}

// write writes a piece to the guest, whole.
func (p *port) write(b []byte) error {
	p.toGuest.Lock()
	defer p.toGuest.Unlock()
	_, err := p.guest.Write(b)
	return err
}

func (p *port) sendFrames() {
	from := bufio.NewReaderSize(p.guest, batchSize)
	var batch []byte
	for {
		var err error
		batch, err = appendFrame(batch[:0], from)
		for err == nil && len(batch) < batchSize && frameBuffered(from) {
			batch, err = appendFrame(batch, from)
		}
		if err != nil {
			return
		}
		c := p.current()
		if c == nil {
			continue
		}
		if _, err := c.Write(batch); err != nil {
			p.drop(c)
		}
	}
}

func (p *port) receiveFrames(c net.Conn) {
	from := bufio.NewReaderSize(c, batchSize)
	var frame []byte
	for {
		var err error
		if frame, err = appendFrame(frame[:0], from); err != nil || p.write(frame) != nil {
			return
		}
	}
}

// frameBuffered tells whether a whole frame can be had without waiting.
func frameBuffered(r *bufio.Reader) bool {
	if r.Buffered() < lengthSize {
		return false
	}
	b, err := r.Peek(lengthSize)
	return err == nil && r.Buffered() >= lengthSize+int(binary.BigEndian.Uint32(b))
}

// appendFrame reads a frame, and appends it with its length.
func appendFrame(b []byte, r *bufio.Reader) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return b, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < minFrame || n > maxFrame {
		return b, errFrame
	}
	begin := len(b) + lengthSize
	b = append(b, length[:]...)
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(r, b[begin:])
	return b, err
}
