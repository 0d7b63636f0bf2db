package netstack

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// What TCP towards the guest is tuned to. The wire is a socket on this host: round
// trips take under a millisecond, so small windows are enough for all its speed, and
// the windows towards the world are the kernel's.
const (
	tcpBufferMax = 512 << 10 // what a connection buffers in each direction when it has few siblings
	tcpBufferMin = 128 << 10 // when it has many: window enough for one segment

	// While a guest is away its connections wait for it. After it has come back none
	// should wait for long until something is sent again.
	maxRTO     = 2 * time.Second
	maxRetries = 255 // of a guest that is away: eight minutes

	timeWait = 500 * time.Millisecond // no segment is late by more on this wire
)

// tune sets the stack up for a wire that is short, and a peer that is hostile.
func tune(s *stack.Stack, limits Limits) tcpip.Error {
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	sack := tcpip.TCPSACKEnabled(true)
	rto := tcpip.TCPMaxRTOOption(maxRTO)
	retries := tcpip.TCPMaxRetriesOption(maxRetries)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	linger := tcpip.TCPLingerTimeoutOption(limits.Linger)
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBufferMin, Max: tcpBufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcpBufferMin, Max: tcpBufferMax},
		&moderate, &sack, &rto, &retries, &wait, &linger,
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return err
		}
	}
	return nil
}

// bufferSize returns what the next connection may buffer in each direction. The n-th
// gets an n-th of Limits.Buffers, within bounds: as the sum of 1/n grows like its
// logarithm, a guest with 1000 connections that stand still holds some 200 MB a
// direction at most, and one with ten has all the room that helps.
func (n *Network) bufferSize() int64 {
	open := n.flows.count(outward) + n.flows.count(inward) + n.flows.count(served)
	return min(max(int64(n.limits.Buffers)/int64(max(open, 1)), tcpBufferMin), tcpBufferMax)
}

// addrPort is the gateway's side of a flow: where the guest wants to go.
func addrPort(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(id.LocalAddress), id.LocalPort)
}

func addrOf(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice()) // of 4 or 16 bytes
	return addr
}

// handleTCP gets what no connection and no listener takes. False answers it with RST.
func (n *Network) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if len(h) < header.TCPMinimumSize || h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return false
	}
	dst := addrPort(id)
	d, ok := n.judge(dst, n.pins.names(dst.Addr()))
	if ok && n.flows.count(outward) >= n.limits.Connections {
		d, ok = Denial{Addr: dst.Addr(), Port: dst.Port(), Reason: errFull.Error()}, false
	}
	if !ok {
		d.Protocol = "tcp"
		n.deny(d)
		return false
	}
	return n.tcp.HandlePacket(id, pkt)
}

// forward connects the guest to where it wants to go. The stack runs it in a
// goroutine for each SYN that handleTCP passed on.
func (n *Network) forward(r *tcp.ForwarderRequest) {
	dst := addrPort(r.ID())
	f, err := n.flows.begin(outward, n.limits.Connections, dst, n.pins.names(dst.Addr()))
	if err != nil {
		r.Complete(true)
		return
	}
	defer n.flows.done(f)
	if _, ok := n.judge(dst, f.names); !ok { // the policy has changed since handleTCP
		r.Complete(true)
		return
	}
	out, err := n.dialOut(f.ctx, "tcp", dst)
	if err != nil {
		n.log.Debug("the guest's destination cannot be reached", logattr.Err(err))
		r.Complete(true)
		return
	}
	in, err := n.shake(f.ctx, r)
	if err != nil {
		abort(out)
		return
	}
	f.carry(in)
	relay(f.ctx, in, out)
	<-in.gone.Done()
}

// dialOut connects to the outside.
func (n *Network) dialOut(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.limits.DialTimeout)
	defer cancel()
	return n.dial(ctx, network, dst.String())
}

// shake completes the handshake with the guest.
func (n *Network) shake(ctx context.Context, r *tcp.ForwarderRequest) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.limits.DialTimeout)
	defer cancel()
	wq := new(waiter.Queue)
	done := make(chan struct{})
	var nudging sync.WaitGroup
	nudging.Go(func() { nudge(ctx, wq, done) })
	ep, err := r.CreateEndpoint(wq)
	close(done)
	nudging.Wait()
	r.Complete(err != nil)
	if err != nil {
		return nil, opError("accept", err)
	}
	return n.newConn(wq, ep, func() {}), nil
}

// nudge ends a CreateEndpoint that waits for the guest on q, once ctx has ended. It
// gives up when it is woken without a connection, and has no other way to be told. As
// it does not say when it begins to wait, nudge goes on until done is closed.
func nudge(ctx context.Context, q *waiter.Queue, done <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-done:
		return
	}
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		q.Notify(waiter.WritableEvents)
		select {
		case <-t.C:
		case <-done:
			return
		}
	}
}
