package cloudhypervisor

import (
	"context"
	"net"
	"sync"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

// turn is the right to connect to a port that serves one client.
type turn struct{ free chan struct{} } // holds one token while nobody is connected

func newTurn() turn {
	t := turn{free: make(chan struct{}, 1)}
	t.free <- struct{}{}
	return t
}

// turnConn gives the turn back when it is closed.
type turnConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *turnConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}

// dial waits for its turn and connects to a port of the guest.
func (m *Machine) dial(ctx context.Context, t *turn, port uint32) (net.Conn, error) {
	if err := m.gone(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-t.free:
	case <-m.ended:
		return nil, m.gone()
	case <-m.released:
		return nil, m.gone()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	conn, err := dialPort(ctx, port, m.dialVsock)
	if err != nil {
		t.free <- struct{}{}
		return nil, m.explain(ctx, err)
	}
	return &turnConn{Conn: conn, release: sync.OnceFunc(func() { t.free <- struct{}{} })}, nil
}

func (m *Machine) dialVsock(ctx context.Context) (net.Conn, error) {
	return m.folder.Dial(ctx, ownName+"/"+vsockName)
}

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

var _ vmm.Machine = (*Machine)(nil)
