package netstacktest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/xfeldman/aegisvm/internal/vmm"
)

const nicID tcpip.NICID = 1

const (
	mtu     = 65520
	waiting = 4096 // frames for the host
)

var (
	self     = netip.MustParseAddr("192.168.127.2")
	gateway  = netip.MustParseAddr("192.168.127.1")
	self6    = netip.MustParseAddr("fd61:6567:6973::2")
	gateway6 = netip.MustParseAddr("fd61:6567:6973::1")
)

// Guest is a machine on the network. Its methods may be called together.
type Guest struct {
	stack *stack.Stack
	card  *channel.Endpoint
	link  *ethernet.Endpoint
	wg    sync.WaitGroup

	mu      sync.Mutex
	conn    net.Conn
	writing sync.Mutex // held for each write to conn
	running *sync.Cond // paused or gone has changed
	paused  bool
	gone    bool
	tap     func(frame []byte) // sees what arrives
}

// Pair returns the two ends of a socket pair.
func Pair(tb testing.TB) (host, guest net.Conn) {
	tb.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		tb.Fatal(err)
	}
	ends := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		_ = f.Close() // FileConn has a copy
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = ends[i].Close() })
	}
	return ends[0], ends[1]
}

// Start returns a guest whose card is at the other end of conn. It ends with tb.
func Start(tb testing.TB, conn net.Conn) *Guest {
	tb.Helper()
	g := &Guest{
		stack: stack.New(stack.Options{
			NetworkProtocols: []stack.NetworkProtocolFactory{
				ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true}), arp.NewProtocol,
				ipv6.NewProtocolWithOptions(ipv6.Options{AllowExternalLoopbackTraffic: true}),
			},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
		card: channel.New(waiting, mtu+header.EthernetMinimumSize, tcpip.LinkAddress(vmm.CardAddress[:])),
		conn: conn,
	}
	g.running = sync.NewCond(&g.mu)
	g.link = ethernet.New(g.card)
	if err := g.setUp(); err != nil {
		tb.Fatalf("set up the guest: %s", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.wg.Go(func() { g.write(ctx) })
	g.Plug(conn)
	tb.Cleanup(func() {
		g.mu.Lock()
		g.gone = true
		g.running.Broadcast()
		conn := g.conn
		g.mu.Unlock()
		cancel()
		_ = conn.Close()
		g.stack.Destroy()
		g.wg.Wait()
	})
	return g
}

func (g *Guest) setUp() tcpip.Error {
	// A test makes many connections, and what it measures is not what is left of them.
	wait := tcpip.TCPTimeWaitTimeoutOption(100 * time.Millisecond)
	if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &wait); err != nil {
		return err
	}
	// Nor for how long a connection is kept that its program has closed.
	linger := tcpip.TCPLingerTimeoutOption(200 * time.Millisecond)
	if err := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &linger); err != nil {
		return err
	}
	if err := g.stack.CreateNIC(nicID, g.link); err != nil {
		return err
	}
	if err := g.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(self), PrefixLen: 24},
	}, stack.AddressProperties{}); err != nil {
		return err
	}
	if err := g.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol: ipv6.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{Address: address(self6), PrefixLen: 64},
	}, stack.AddressProperties{}); err != nil {
		return err
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: subnet(self, 24), NIC: nicID},
		{Destination: header.IPv4EmptySubnet, Gateway: address(gateway), NIC: nicID},
		{Destination: subnet(self6, 64), NIC: nicID},
		{Destination: header.IPv6EmptySubnet, Gateway: address(gateway6), NIC: nicID},
	})
	return nil
}

func subnet(a netip.Addr, bits int) tcpip.Subnet {
	return tcpip.AddressWithPrefix{Address: address(a), PrefixLen: bits}.Subnet()
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// protocol returns that of an address.
func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Plug puts the guest's card at the end of another connection.
func (g *Guest) Plug(conn net.Conn) {
	g.mu.Lock()
	g.conn = conn
	g.mu.Unlock()
	g.wg.Go(func() { g.read(conn) })
}

// Pause stops the guest: it takes no frames, and sends none.
func (g *Guest) Pause() { g.setPaused(true) }

// Resume lets it go on.
func (g *Guest) Resume() { g.setPaused(false) }

func (g *Guest) setPaused(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = on
	g.running.Broadcast()
}

// proceed waits while the guest is paused. It returns the connection, or nil at the
// end.
func (g *Guest) proceed() net.Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.paused && !g.gone {
		g.running.Wait()
	}
	if g.gone {
		return nil
	}
	return g.conn
}

func (g *Guest) read(conn net.Conn) {
	r := bufio.NewReaderSize(conn, 64<<10)
	for {
		if g.proceed() == nil {
			return
		}
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		if g.proceed() == nil {
			return
		}
		g.mu.Lock()
		tap := g.tap
		g.mu.Unlock()
		if tap != nil {
			tap(frame)
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
		g.card.InjectInbound(0, pkt)
		pkt.DecRef()
	}
}

func (g *Guest) write(ctx context.Context) {
	for {
		pkt := g.card.ReadContext(ctx)
		if pkt == nil {
			return
		}
		var b bytes.Buffer
		for _, s := range pkt.AsSlices() {
			b.Write(s)
		}
		pkt.DecRef()
		if g.proceed() == nil {
			return
		}
		_ = g.Send(b.Bytes()) // without a host, frames are lost
	}
}

// Send writes a frame as it is, with its length before it.
func (g *Guest) Send(frame []byte) error {
	return g.SendRaw(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)) //nolint:gosec // a test's frame
}

// SendRaw writes bytes that need not be a frame.
func (g *Guest) SendRaw(b []byte) error {
	g.mu.Lock()
	conn := g.conn
	g.mu.Unlock()
	g.writing.Lock()
	defer g.writing.Unlock()
	_, err := conn.Write(b)
	return err
}

// errnos are the errors that tests ask for.
var errnos = map[string]error{
	(&tcpip.ErrConnectionRefused{}).String(): syscall.ECONNREFUSED,
	(&tcpip.ErrConnectionReset{}).String():   syscall.ECONNRESET,
	(&tcpip.ErrConnectionAborted{}).String(): syscall.ECONNABORTED,
	(&tcpip.ErrTimeout{}).String():           syscall.ETIMEDOUT,
	(&tcpip.ErrHostUnreachable{}).String():   syscall.EHOSTUNREACH,
}

func mend(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		if errno, ok := errnos[op.Err.Error()]; ok {
			op.Err = errno
		}
	}
	return err
}

// Conn is a connection of the guest, with CloseWrite.
type Conn struct {
	*gonet.TCPConn

	ep tcpip.Endpoint
}

// Abort ends the connection with RST.
func (c Conn) Abort() { c.ep.Abort() }

// Read implements net.Conn.
func (c Conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, mend(err)
}

// Write implements net.Conn.
func (c Conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, mend(err)
}

// Dial connects over TCP.
func (g *Guest) Dial(ctx context.Context, to netip.AddrPort) (Conn, error) {
	wq := new(waiter.Queue)
	ep, err := g.stack.NewEndpoint(tcp.ProtocolNumber, protocol(to.Addr()), wq)
	if err != nil {
		return Conn{}, errors.New(err.String())
	}
	entry, connected := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	err = ep.Connect(full(to))
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-connected:
			err = ep.LastError()
		case <-ctx.Done():
			ep.Close()
			return Conn{}, context.Cause(ctx)
		}
	}
	if err != nil {
		ep.Close()
		return Conn{}, mend(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New(err.String())})
	}
	return Conn{gonet.NewTCPConn(wq, ep), ep}, nil
}

// DialUDP returns a socket that is connected to to.
func (g *Guest) DialUDP(to netip.AddrPort) (*gonet.UDPConn, error) {
	remote := full(to)
	c, err := gonet.DialUDP(g.stack, nil, &remote, protocol(to.Addr()))
	return c, mend(err)
}

// Listen opens a TCP port.
func (g *Guest) Listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(g.stack, full(netip.AddrPortFrom(self, port)), ipv4.ProtocolNumber)
}

// Ping sends an echo request and waits for what comes back: nil for a reply, or the
// error that an ICMP message tells of.
func (g *Guest) Ping(ctx context.Context, to netip.Addr) error {
	echo, transport := make([]byte, header.ICMPv4MinimumSize+8), icmp.ProtocolNumber4
	header.ICMPv4(echo).SetType(header.ICMPv4Echo)
	if to.Is6() {
		transport = icmp.ProtocolNumber6
		header.ICMPv6(echo).SetType(header.ICMPv6EchoRequest)
	}
	for {
		once, cancel := context.WithTimeout(ctx, pingInterval)
		_, err := g.ask(once, transport, tcpip.FullAddress{NIC: nicID, Addr: address(to)}, echo)
		late := once.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !late {
			return err
		}
	}
}

// pingInterval is after how long a ping is sent again: a network that is flooded may lose
// one.
const pingInterval = 500 * time.Millisecond

// Ask sends a UDP datagram and waits for what comes back: the answer, or the error
// that an ICMP message tells of.
func (g *Guest) Ask(ctx context.Context, to netip.AddrPort, payload []byte) ([]byte, error) {
	return g.ask(ctx, udp.ProtocolNumber, full(to), payload)
}

func (g *Guest) ask(ctx context.Context, transport tcpip.TransportProtocolNumber, to tcpip.FullAddress, payload []byte) ([]byte, error) {
	var wq waiter.Queue
	network := ipv4.ProtocolNumber
	if to.Addr.Len() == header.IPv6AddressSize {
		network = ipv6.ProtocolNumber
	}
	ep, err := g.stack.NewEndpoint(transport, network, &wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	if err := ep.Connect(to); err != nil {
		return nil, errors.New(err.String())
	}
	if _, err := ep.Write(bytes.NewReader(payload), tcpip.WriteOptions{}); err != nil {
		return nil, errors.New(err.String())
	}
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var answer bytes.Buffer
	if _, err := ep.Read(&answer, tcpip.ReadOptions{}); err != nil {
		return nil, mend(&net.OpError{Op: "read", Err: errors.New(err.String())})
	}
	return answer.Bytes(), nil
}

func full(to netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: address(to.Addr()), Port: to.Port()}
}
