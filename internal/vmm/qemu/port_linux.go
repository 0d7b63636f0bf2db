package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// port is a socket of QEMU's that serves one client.
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
	if err := errors.Join(m.gone(), ended(ctx)); err != nil {
		return nil, err
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
	conn, err := m.folder.dial(ctx, p.name)
	if err != nil {
		p.free <- struct{}{}
		return nil, m.explain(ctx, err)
	}
	return &portConn{Conn: conn, release: sync.OnceFunc(func() { p.free <- struct{}{} })}, nil
}

// awaitNetwork waits until QEMU serves the socket of the network card. It begins to
// in a thread of its own, and until then QEMU 7.2 takes the card for connected: a
// guest that sends a frame earlier, as one that was saved does at once, ends it
// with a segmentation fault.
//
// A connection that is closed at our end is closed at QEMU's once that has taken
// it, and the card is without a peer from then on.
func (m *Machine) awaitNetwork(ctx context.Context) error {
	if !m.network {
		return nil
	}
	conn, err := m.dial(ctx, &m.net)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing went over it
	p, _ := conn.(*portConn)
	u, ok := p.Conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("connection of type %T", p.Conn)
	}
	stop := context.AfterFunc(ctx, func() { _ = u.SetReadDeadline(time.Unix(1, 0)) }) // ends the read
	defer stop()
	if err := u.CloseWrite(); err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, u); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// endGrace is how long a process whose sockets are closed has to be gone.
const endGrace = 5 * time.Second

// explain turns an error of a call into vmm.ErrEnded where the reason is that the
// machine is just ending.
func (m *Machine) explain(ctx context.Context, err error) error {
	if !dying(err) {
		return err
	}
	if gone := m.awaitEnd(ctx); gone != nil {
		return gone
	}
	return err
}

// awaitEnd gives a machine that is about to end the time for it, and tells whether
// it has.
func (m *Machine) awaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endGrace)
	defer cancel()
	_, _ = m.Wait(ctx) // gone tells what came of it
	return m.gone()
}
