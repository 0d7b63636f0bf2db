package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// conn is a TCP connection with the guest. Its errors are those that a connection of
// the kernel has.
type conn struct {
	*gonet.TCPConn

	ep      tcpip.Endpoint
	wq      *waiter.Queue
	linger  time.Duration
	local   net.Addr
	remote  net.Addr
	probe   time.Duration
	gone    context.Context //nolint:containedctx // ends when the endpoint needs the guest no more
	closing sync.Once
	killing sync.Once
	probing sync.Once
}

// newConn wraps an endpoint that is connected. left is called, once and without
// waiting for anything, when the connection needs the guest no more.
func (n *Network) newConn(wq *waiter.Queue, ep tcpip.Endpoint, left func()) *conn {
	c := &conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, wq: wq, linger: n.limits.Linger, probe: n.limits.Probe}
	if info, ok := ep.Info().(*stack.TransportEndpointInfo); ok {
		c.local, c.remote = tcpAddr(info.ID.LocalAddress, info.ID.LocalPort), tcpAddr(info.ID.RemoteAddress, info.ID.RemotePort)
	}
	size := n.bufferSize()
	ep.SocketOptions().SetSendBufferSize(size, true)
	ep.SocketOptions().SetReceiveBufferSize(size, true)
	gone, end := context.WithCancel(context.Background())
	c.gone = gone
	leave := sync.OnceFunc(func() {
		end()
		left()
	})
	hup := waiter.NewFunctionEntry(waiter.EventHUp, func(waiter.EventMask) { leave() })
	wq.EventRegister(&hup)
	// It may have ended before. Readiness tells of half-closes unasked.
	if ep.Readiness(waiter.EventHUp)&waiter.EventHUp != 0 {
		leave()
	}
	return c
}

func tcpAddr(a tcpip.Address, port uint16) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addrOf(a), port))
}

// LocalAddr implements net.Conn. It is known after the end too.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn. It is known after the end too.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	if errors.Is(err, io.EOF) {
		c.probing.Do(c.startProbing)
	}
	return n, asErrno(err)
}

// probes is how many are not answered by a guest that is gone.
const probes = 4

// startProbing asks the guest, which has ended its direction, from time to time whether
// it still takes what it is sent. A program that has closed a connection altogether
// looks like one that has not, until its system is asked.
func (c *conn) startProbing() {
	idle, interval := tcpip.KeepaliveIdleOption(c.probe), tcpip.KeepaliveIntervalOption(c.probe)
	_ = c.ep.SetSockOpt(&idle) // TCP has them
	_ = c.ep.SetSockOpt(&interval)
	_ = c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, probes)
	c.ep.SocketOptions().SetKeepAlive(true)
}

// Gone returns a context that ends when the guest takes no more: it has ended its
// direction and closed the connection, or the connection broke.
func (c *conn) Gone() context.Context { return c.gone }

// await returns when Read would not wait.
func (c *conn) await() {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	c.wq.EventRegister(&entry)
	defer c.wq.EventUnregister(&entry)
	if c.ep.Readiness(waiter.ReadableEvents)&waiter.ReadableEvents == 0 {
		<-readable
	}
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, asErrno(err)
}

// Close ends the connection in good order. What was written still arrives, if the
// guest takes it soon.
func (c *conn) Close() error {
	c.closing.Do(func() {
		// A guest that never acknowledges the end must not keep the connection for ever.
		limit := tcpip.TCPUserTimeoutOption(c.linger)
		_ = c.ep.SetSockOpt(&limit) // TCP has it
		c.ep.Close()
	})
	return nil
}

// Abort ends the connection with RST.
func (c *conn) Abort() {
	c.killing.Do(func() {
		if c.gone.Err() == nil {
			c.ep.Abort()
		}
	})
	_ = c.Close() // never fails
}

// timeout is an error of a deadline.
type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return true }
func (timeout) Unwrap() error   { return os.ErrDeadlineExceeded }

// errnos maps what the stack says to what a kernel would.
var errnos = map[string]error{
	(&tcpip.ErrConnectionRefused{}).String():    syscall.ECONNREFUSED,
	(&tcpip.ErrConnectionReset{}).String():      syscall.ECONNRESET,
	(&tcpip.ErrConnectionAborted{}).String():    syscall.ECONNABORTED,
	(&tcpip.ErrAborted{}).String():              syscall.ECONNABORTED,
	(&tcpip.ErrTimeout{}).String():              syscall.ETIMEDOUT,
	(&tcpip.ErrHostUnreachable{}).String():      syscall.EHOSTUNREACH,
	(&tcpip.ErrNetworkUnreachable{}).String():   syscall.ENETUNREACH,
	(&tcpip.ErrClosedForSend{}).String():        syscall.EPIPE,
	(&tcpip.ErrNotConnected{}).String():         syscall.ENOTCONN,
	(&tcpip.ErrPortInUse{}).String():            syscall.EADDRINUSE,
	(&tcpip.ErrNoPortAvailable{}).String():      syscall.EADDRNOTAVAIL,
	(&tcpip.ErrInvalidEndpointState{}).String(): net.ErrClosed,
}

// asErrno gives err, which gonet made, the cause that it lost there.
func asErrno(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	op, ok := errors.AsType[*net.OpError](err)
	if !ok {
		return err
	}
	if op.Timeout() {
		op.Err = timeout{op.Err}
	} else if errno, ok := errnos[op.Err.Error()]; ok {
		op.Err = errno
	}
	return err
}

// opError is an error of an operation between the gateway and the guest.
func opError(op string, err tcpip.Error) error {
	return asErrno(&net.OpError{Op: op, Net: "tcp", Err: errors.New(err.String())})
}

// abort ends a connection to the outside, with RST where it can.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0) // then it is an ordinary close
	}
	_ = c.Close() // nobody is left to tell
}
