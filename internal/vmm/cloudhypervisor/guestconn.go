package cloudhypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// redialPause is how long to wait before a port is tried again on which the guest
	// does not listen yet. The VMM refuses such a connection, and has no event for
	// the moment from which on it would not.
	redialPause = 5 * time.Millisecond
	// maxGreeting bounds "OK 1073741824\n".
	maxGreeting = 32
)

// guestConn is a connection to a vsock port of the guest. It implements net.Conn.
//
// It exists before the guest listens: what is written meanwhile is lost, and Read
// waits, and connects again whenever the VMM refuses, or the guest's kernel resets: after a
// start from a saved machine it ends all connections that it has, and ours may be one of them
// already. From the guest's first byte on it is the connection that it stands for. One
// goroutine reads at a time.
type guestConn struct {
	dial    func(context.Context) (net.Conn, error)
	command []byte          // "CONNECT 1024\n"
	ctx     context.Context //nolint:containedctx // the life of the connection, in which it is made again
	cancel  context.CancelFunc

	mu     sync.Mutex
	conn   net.Conn
	proven bool      // something came from the guest
	read   time.Time // deadlines
	write  time.Time

	// The reader's alone.
	greeting []byte // the VMM's answer, as far as it has come
	greeted  bool   // it says that the guest has accepted
}

// dialPort connects to a port of the guest. Its errors are those of the VMM's end: the
// guest's are for Read.
func dialPort(ctx context.Context, port uint32, dial func(context.Context) (net.Conn, error)) (*guestConn, error) {
	c := &guestConn{dial: dial, command: fmt.Appendf(nil, "CONNECT %d\n", port)}
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	c.ctx, c.cancel = context.WithCancel(context.Background()) // until Close
	return c, nil
}

// connect opens a connection and says where it leads.
func (c *guestConn) connect(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(c.command); err != nil {
		_ = conn.Close() // the first error is the one to tell
		return nil, err
	}
	return conn, nil
}

// Read implements net.Conn.
func (c *guestConn) Read(p []byte) (int, error) {
	for {
		c.mu.Lock()
		conn, proven := c.conn, c.proven
		c.mu.Unlock()
		if proven || len(p) == 0 {
			return conn.Read(p)
		}
		n, err := c.first(conn, p)
		switch {
		case n > 0:
			c.mu.Lock()
			c.proven = true
			c.mu.Unlock()
			return n, err
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return 0, err
		}
		if err := c.again(conn); err != nil {
			return 0, err
		}
	}
}

// first reads from a connection on which the guest has said nothing yet.
func (c *guestConn) first(conn net.Conn, p []byte) (int, error) {
	if !c.greeted {
		if err := c.greet(conn); err != nil {
			return 0, err
		}
		c.greeted = true
	}
	return conn.Read(p)
}

// greet waits for the VMM to say that the guest has accepted. It reads byte by byte, as what
// follows is the guest's.
func (c *guestConn) greet(conn net.Conn) error {
	var b [1]byte
	for len(c.greeting) < maxGreeting {
		if _, err := conn.Read(b[:]); err != nil {
			return err
		}
		if c.greeting = append(c.greeting, b[0]); b[0] != '\n' {
			continue
		}
		if bytes.HasPrefix(c.greeting, []byte("OK ")) {
			return nil
		}
		break
	}
	return fmt.Errorf("the VMM answers %.40q", c.greeting)
}

// again takes the place of a connection that was refused or reset, after a pause, which is
// too short for a deadline to matter.
func (c *guestConn) again(refused net.Conn) error {
	c.greeting, c.greeted = nil, false
	_ = refused.Close() // nothing came over it
	select {
	case <-time.After(redialPause):
	case <-c.ctx.Done():
		return net.ErrClosed
	}
	conn, err := c.connect(c.ctx)
	if err != nil {
		if c.ctx.Err() != nil {
			return net.ErrClosed
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil { // Close did not meet this one
		_ = conn.Close()
		return net.ErrClosed
	}
	c.conn = conn
	return errors.Join(conn.SetReadDeadline(c.read), conn.SetWriteDeadline(c.write))
}

// Write implements net.Conn.
func (c *guestConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	conn, proven := c.conn, c.proven
	c.mu.Unlock()
	n, err := conn.Write(p)
	if err == nil || proven || c.ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	return len(p), nil // lost with the connection that was refused
}

// Close implements net.Conn.
func (c *guestConn) Close() error {
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.Close()
}

// LocalAddr implements net.Conn.
func (c *guestConn) LocalAddr() net.Addr { return c.current().LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *guestConn) RemoteAddr() net.Addr { return c.current().RemoteAddr() }

func (c *guestConn) current() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// SetDeadline implements net.Conn.
func (c *guestConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *guestConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *guestConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.conn.SetWriteDeadline(t)
}
