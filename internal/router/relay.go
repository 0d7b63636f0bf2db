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
	return outcome{answered: answered, asked: <-asked}
}

// halfConn is what a direction of a relay needs of its ends.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

const bufferSize = 64 << 10

// buffers are reused: a relay needs two, and lives as long as its client likes. It is
// the httputil.BufferPool of Front.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[bufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, bufferSize)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }

// pass writes said and then what it reads from one end to the other, until the first
// ends its direction; that is passed on. It reports whether it got so far.
func pass(to, from halfConn, said []byte) bool {
	if len(said) > 0 {
		if _, err := to.Write(said); err != nil {
			return false
		}
	}
	buf := buffers.Get()
	defer buffers.Put(buf)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
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

// leaves waits until a client that has ended its direction is gone altogether, and
// reports false when ctx ends first. A client that is closed says so only when its
// system is asked, which TCP's keepalive does: without this, one that went from a
// silent guest would hold it awake for ever.
func leaves(ctx context.Context, client *net.TCPConn) bool {
	stop := context.AfterFunc(ctx, func() { _ = client.SetReadDeadline(past) })
	defer stop()
	return awaitReset(client)
}
