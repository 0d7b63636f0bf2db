package libkrun

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// port is a socket of a worker that serves one client.
type port struct {
	name string
	free chan struct{} // holds one token while nobody is connected
}

func newPort(name string) port {
	p := port{name: name, free: make(chan struct{}, 1)}
	p.free <- struct{}{}
	return p
}

// portConn gives its port back when it is closed.
type portConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *portConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

// dial waits for its turn and connects.
func (m *Machine) dial(ctx context.Context, p *port) (net.Conn, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-p.free:
	case <-m.ended:
		return nil, m.gone()
	case <-m.released:
		return nil, m.gone()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c, err := m.folder.dial(ctx, p.name)
	if err != nil {
		p.free <- struct{}{}
		return nil, m.explain(ctx, err)
	}
	return &portConn{Conn: c, release: sync.OnceFunc(func() { p.free <- struct{}{} })}, nil
}

// endGrace is how long a process whose sockets are closed has to be gone.
const endGrace = 5 * time.Second

// explain turns an error of a call into vmm.ErrEnded where the reason is that the
// machine is just ending.
func (m *Machine) explain(ctx context.Context, err error) error {
	if !dying(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endGrace)
	defer cancel()
	_, _ = m.Wait(ctx) // gone tells what came of it
	if gone := m.gone(); gone != nil {
		return gone
	}
	return err
}

// dying tells whether an error is what one sees of a process that goes.
func dying(err error) bool {
	for _, sign := range []error{
		net.ErrClosed, vmm.ErrEnded, errNoProcess,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, syscall.ENOENT, syscall.ESRCH,
	} {
		if errors.Is(err, sign) {
			return true
		}
	}
	return false
}
