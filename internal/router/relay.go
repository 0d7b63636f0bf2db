package router

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/instance"
)

var past = time.Unix(1, 0)

// outcome tells how a relay ended.
type outcome struct {
	// answered says that the client has everything that the guest had to say.
	answered bool
	// asked says that the guest has everything that the client had to say.
	asked bool
}

// relay copies both ways, what the client has said first, until both directions have
// ended.
//
// A side that ends its direction has that passed on, and still gets its answer. A side
// that breaks ends both; a side that only takes no more, as a server does that refuses
// an upload, still has passed on what it said.
func relay(client *net.TCPConn, guest instance.GuestConn, said []byte) outcome {
	over, end := context.WithCancel(context.Background())
	asked := make(chan bool, 1)
	go func() {
		ok := pass(guest, client, said)
		if ok && leaves(over, client) {
			_ = guest.SetDeadline(past) // nobody waits for the answer
			ok = false
		}
		asked <- ok
	}()
	answered := pass(client, guest, nil)
	end()
	// A guest that takes no more leaves a client that has not ended its direction with
	// nobody to talk to.
	defer context.AfterFunc(guest.Gone(), func() { _ = client.SetReadDeadline(past) })()
	return outcome{answered: answered, asked: <-asked}
}

// halfConn is what a direction of a relay needs of its ends.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// buffers are large, and reused. They are the httputil.BufferPool of Front, too.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[largeRead]byte); ok {
		return b[:]
	}
	return make([]byte, largeRead)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[largeRead]byte)(b)) }

// pass writes said and then what it reads from one end to the other, until the first
// ends its direction; that is passed on. It reports whether it got so far.
func pass(to, from halfConn, said []byte) bool {
	if len(said) > 0 {
		if _, err := to.Write(said); err != nil {
			return false
		}
	}
	in := inlet{from: from, buf: make([]byte, smallRead)}
	defer in.free()
	for {
		b, err := in.read()
		if len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				return false // what to has said before may still be read: the other direction ends by itself
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite() // it may have broken by now, which the other direction sees
			return true
		case err != nil:
			_ = to.SetDeadline(past) // from is gone: frees the other direction
			return false
		}
	}
}

// inlet reads with a large buffer while much comes, and waits with a small one: most
// connections are silent most of the time.
type inlet struct {
	from  net.Conn
	buf   []byte
	large []byte // of buffers, or nil
}

const (
	smallRead = 2 << 10
	largeRead = 64 << 10
)

// read returns what comes next. It is valid until the next call.
func (i *inlet) read() ([]byte, error) {
	buf := i.buf
	if i.large != nil {
		buf = i.large
	}
	n, err := i.from.Read(buf)
	switch {
	case i.large == nil && n == len(buf):
		i.large = buffers.Get()
	case i.large != nil && n < smallRead:
		copy(i.buf, buf[:n])
		i.free()
		buf = i.buf
	}
	return buf[:n], err
}

func (i *inlet) free() {
	if i.large != nil {
		buffers.Put(i.large)
		i.large = nil
	}
}

// leaves waits until a client that has ended its direction is gone altogether, and
// reports false when ctx ends first. A client that is closed says so only when its
// system is asked, which TCP's keepalive does: without this, one that went from a
// silent guest would hold it awake for ever.
func leaves(ctx context.Context, client *net.TCPConn) bool {
	stop := context.AfterFunc(ctx, func() { _ = client.SetReadDeadline(past) })
	defer stop()
	return awaitReset(client)
}
