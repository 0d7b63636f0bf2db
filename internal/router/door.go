package router

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Ports that Doors chooses itself lie in this range: below those from which systems
// take the local ports of outgoing connections, which could have one of ours while the
// daemon is being replaced.
const (
	firstChosen = 20000
	lastChosen  = 29999
	tries       = 64 // before any port that the system has will do
)

// DefaultWake bounds the wait of a client for its instance.
const DefaultWake = 30 * time.Second

// DefaultConns bounds the connections of one door.
const DefaultConns = 4096

// Doors opens public ports. It implements instance.Doors.
type Doors struct {
	Log   *slog.Logger
	Wake  time.Duration // protects clients from an instance that does not wake; 0 is DefaultWake
	Conns int           // of one door; later clients wait in the backlog; 0 is DefaultConns
}

var _ instance.Doors = Doors{}

// Open implements instance.Doors.
func (d Doors) Open(at netip.AddrPort, connect instance.Connect) (instance.Door, error) {
	ln, err := listen(at)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	out := &door{
		ln: ln, connect: connect, log: d.Log, wake: cmp.Or(d.Wake, DefaultWake),
		ctx: ctx, cancel: cancel, slots: make(chan struct{}, cmp.Or(d.Conns, DefaultConns)),
	}
	out.conns.Go(out.accept)
	return out, nil
}

func listen(at netip.AddrPort) (*net.TCPListener, error) {
	if at.Port() == 0 {
		for range tries {
			port := uint16(firstChosen + rand.N(lastChosen-firstChosen+1)) //nolint:gosec // not a secret; fits
			if ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr(), port))); err == nil {
				return ln, nil
			}
		}
	}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, listenFault(at, err)
	}
	return ln, nil
}

// listenFault explains why a port cannot be opened.
func listenFault(at netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fault.Wrap(fault.Conflict, syscall.EADDRINUSE, "port %d is taken by another program", at.Port()).
			WithHint("choose another port, or find the program: ss -ltnp 'sport = :%d'", at.Port())
	case errors.Is(err, syscall.EACCES):
		return fault.Wrap(fault.Denied, syscall.EACCES, "port %d needs more rights than this user has", at.Port()).
			WithHint("choose a port from 1024 on")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fault.Wrap(fault.Invalid, syscall.EADDRNOTAVAIL, "%v is not an address of this host", at.Addr()).
			WithHint("see: ip address")
	}
	return fault.Wrap(fault.Unavailable, err, "open port %d", at.Port()).By(fault.Host)
}

// door is one public port.
type door struct {
	ln      *net.TCPListener
	connect instance.Connect
	log     *slog.Logger
	wake    time.Duration

	ctx    context.Context //nolint:containedctx // the life of the door; Close ends it
	cancel context.CancelCauseFunc
	slots  chan struct{}
	conns  sync.WaitGroup
}

var errShut = errors.New("the port was closed")

// Port implements instance.Door.
func (d *door) Port() uint16 { return d.ln.Addr().(*net.TCPAddr).AddrPort().Port() } //nolint:forcetypeassert // of a TCP listener

// Close implements instance.Door.
func (d *door) Close() error {
	d.cancel(errShut)
	return d.ln.Close()
}

// Wait implements instance.Door.
func (d *door) Wait() { d.conns.Wait() }

// acceptPause is what a listener waits that has run into a limit of the system, such as
// that of open files.
const acceptPause = 50 * time.Millisecond

func (d *door) accept() {
	for {
		select {
		case d.slots <- struct{}{}:
		case <-d.ctx.Done():
			return
		}
		c, err := d.ln.AcceptTCP()
		if err != nil {
			<-d.slots
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.log.Error("accept", logattr.Err(err))
			timer := time.NewTimer(acceptPause)
			select {
			case <-timer.C:
			case <-d.ctx.Done():
				timer.Stop()
			}
			continue
		}
		d.conns.Go(func() {
			defer func() { <-d.slots }()
			d.serve(c)
		})
	}
}

// serve joins one client with its guest.
func (d *door) serve(client *net.TCPConn) {
	stop := context.AfterFunc(d.ctx, func() { abort(client) })
	defer stop()
	guest, said, err := d.reach(client)
	if err != nil {
		d.log.DebugContext(d.ctx, "connect", logattr.Err(err))
		if len(said) == 0 {
			said = firstWords(client)
		}
		if apologize(client, said, err) {
			_ = client.Close() // it has been told all there is
			return
		}
		abort(client) // an orderly end would pass for an empty answer
		return
	}
	end := relay(client, guest, said)
	switch {
	case end.answered && end.asked:
		_ = guest.Close() // both directions have ended
		_ = client.Close()
	case end.answered:
		guest.Abort()
		drain(client)
		_ = client.Close()
	default:
		guest.Abort()
		abort(client)
	}
}

// reach connects to the guest of a client, and returns what the client has said
// meanwhile.
func (d *door) reach(client *net.TCPConn) (guest instance.GuestConn, said []byte, err error) {
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	ctx, done := context.WithTimeoutCause(ctx, d.wake,
		fault.New(fault.Timeout, "the instance was not ready within %v", d.wake).WithHint("see: aegis instance list"))
	defer done()
	early := hear(client, cancel)
	guest, err = d.connect(ctx)
	return guest, early.stop(), err
}

// abort resets a connection.
func abort(client *net.TCPConn) {
	_ = client.SetLinger(0) // fails when it has broken already
	_ = client.Close()
}
