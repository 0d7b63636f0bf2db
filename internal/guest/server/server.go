package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// System is the machine around the processes.
type System interface {
	// Prepare waits until the machine can be saved as a template; one of instances whose
	// disk is new has its root file system, on a disk of that many bytes, if disk is not 0.
	// Its error is the answer to Hello.
	Prepare(ctx context.Context, disk int64) error
	// Ready waits until processes can be started, on an instance's disk of that many
	// bytes; 0 is any. Its error is the answer to Hello.
	Ready(ctx context.Context, disk int64) error
	// Identify makes the machine the instance it is to be.
	Identify(id guestproto.Identity) error
	// Thaw sets the clock, reseeds the random number generator, then lets frozen
	// processes run.
	Thaw(thaw guestproto.Thaw) error
	// Freeze writes dirty data back and stops all user processes. It returns those
	// that did not stop in time.
	Freeze(deadline time.Duration) ([]string, error)
	// Mount mounts folders of the host, but for those that are mounted already.
	Mount(req guestproto.Mount) error
	// Stats tells of the machine's own use.
	Stats() (guestproto.Stats, error)
	// PowerOff ends the machine; the processes have ended before.
	PowerOff()
}

// Config is what a Server is made of.
type Config struct {
	Port      *port.Port
	Table     *process.Table
	System    System
	Harness   string // build version
	BootNonce string
	Files     string // the folder that hosts see as the root in copies; "" allows none
	// Changes returns a path of the upper folder of the overlay that is the root, and what
	// to call after it was read. Nil is no such folder.
	Changes func() (path string, release func(), err error)
	// API is where programs connect to the Guest API; nil is none. The Server closes it.
	API net.Listener
}

// Server answers one host.
type Server struct {
	conf  Config
	calls *calls
	apis  chan net.Conn // connections to the Guest API, for the streams that wait for them

	ctx    context.Context //nolint:containedctx // the life of the requests, which outlive their sessions
	cancel context.CancelFunc
	off    sync.Once
	power  sync.WaitGroup

	mu     sync.Mutex
	events chan<- guestproto.Message // of the session, nil while there is none
	lonely time.Duration             // 0 is for ever
	timer  *time.Timer
}

// New returns a server. Run serves.
func New(conf Config) *Server {
	s := &Server{conf: conf, calls: newCalls(), apis: make(chan net.Conn)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Run serves until the port's device fails, and returns when nothing it started
// runs any more. The table is the caller's to close.
func (s *Server) Run() error {
	s.setLonely(ungreeted)
	s.startLonely()
	stopAPI := s.listenAPI()
	err := s.conf.Port.Run(s.session)
	s.cancel()
	stopAPI()
	s.setLonely(0)
	s.calls.wait()
	s.power.Wait()
	return err
}

// OOM tells the host, if there is one, that the kernel killed a process.
func (s *Server) OOM(event guestproto.OOM) {
	m, err := guestproto.NewMessage(0, guestproto.TypeOOM, event)
	if err != nil {
		return // two short strings always encode
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.events <- m:
	default: // no host, or one that does not read: events are not kept
	}
}

// muxConfig is yamux's without whatever would declare a sleeping peer dead: either
// end may be paused for days, in the middle of anything.
func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = 0 // the host says when it is over
	c.ConnectionWriteTimeout = 10 * 365 * 24 * time.Hour
	c.MaxStreamWindowSize = 1 << 20
	c.LogOutput = io.Discard
	return c
}

// session serves one yamux session.
func (s *Server) session(conn *port.Session) {
	s.stopLonely()
	defer s.startLonely()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	mux, err := yamux.Server(conn, muxConfig())
	if err != nil {
		panic(fmt.Sprintf("yamux refuses its configuration: %v", err))
	}
	sess := &session{Server: s, greeted: make(chan struct{})}
	var streams sync.WaitGroup
	for {
		stream, err := mux.AcceptStream()
		if err != nil {
			break // the session has ended
		}
		streams.Go(func() { sess.serve(ctx, stream) })
	}
	cancel()
	_ = mux.Close() // it has ended
	streams.Wait()
}

// session is what the streams of one yamux session share.
type session struct {
	*Server

	once    sync.Once
	greeted chan struct{} // closed when Welcome was sent
}

// serve answers a stream's header and hands it on.
func (s *session) serve(ctx context.Context, stream *yamux.Stream) {
	defer stream.Close() //nolint:errcheck // the stream ends either way
	m, err := guestproto.ReadMessage(stream)
	if err != nil {
		return
	}
	var header guestproto.StreamHeader
	if err := m.Decode(&header); err != nil || m.Type != guestproto.TypeStream {
		_ = refuse(stream, guestproto.CodeInvalid, "a stream without a header")
		return
	}
	if header.Kind == guestproto.StreamControl {
		s.control(ctx, stream)
		return
	}
	select {
	case <-s.greeted:
		s.conf.Port.Confirm()
	default:
		_ = refuse(stream, guestproto.CodeUnavailable, "no hello in this session yet")
		return
	}
	switch header.Kind {
	case guestproto.StreamAttach:
		s.attach(ctx, stream, header)
	case guestproto.StreamDial:
		s.dial(ctx, stream, header.Addr)
	case guestproto.StreamCopy:
		s.copy(ctx, stream, header.Copy)
	case guestproto.StreamAPI:
		s.api(ctx, stream)
	case guestproto.StreamControl:
	default:
		_ = refuse(stream, guestproto.CodeUnsupported, fmt.Sprintf("stream of kind %q", header.Kind))
	}
}

func accept(w io.Writer, reply guestproto.StreamReply) error {
	return guestproto.WriteMessage(w, guestproto.Message{Type: guestproto.TypeStream}, reply)
}

func refuse(w io.Writer, code guestproto.Code, msg string) error {
	return refuseErr(w, &guestproto.Error{Code: code, Msg: msg})
}

func refuseErr(w io.Writer, err error) error {
	return guestproto.WriteMessage(w, guestproto.Message{Type: guestproto.TypeStream, Error: process.ErrorOf(err)}, nil)
}
