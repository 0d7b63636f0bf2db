package nfs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what a Server can be told. Zero values are defaults.
type Options struct {
	Log *slog.Logger // the default discards
	// PrivilegedPorts has connections from ports that any program may use refused: a
	// guest's user can bind none below 1024, and so not speak to the server past the
	// guest's kernel.
	PrivilegedPorts bool
	// Journal is a file in which answers are noted that must not be lost when the daemon
	// is killed: the guest asks again, and a file that was removed cannot be removed
	// twice. It belongs to one life of a VM, from its start or the restore of a saved
	// machine over all servers that it has: whoever begins a life removes it first. ""
	// is none.
	Journal  string
	MaxNodes int // inodes whose place is remembered, for each export; 1<<18
	MaxFiles int // files that are kept open, for each export; 128
}

// Server serves exports to one guest. Its methods may be called together.
type Server struct {
	o       Options
	volumes []*volume
	byID    map[uint64]*volume
	boot    uint64   // write verifier: changes with each server
	journal *journal // nil for none
	replays *replays
	buffers *buffers
	said    atomic.Int64    // when something was last complained about
	ctx     context.Context //nolint:containedctx // the life of requests
	cancel  context.CancelFunc

	mu     sync.Mutex
	closed bool
	lns    map[net.Listener]struct{}
	conns  map[*conn]struct{}
	serves sync.WaitGroup // calls of Serve and connections
}

// maxConns bounds connections. The kernel has one, and one more for a moment when it
// mounts.
const maxConns = 16

// ErrClosed is what calls on a closed server return.
var ErrClosed = errors.New("nfs: server closed")

// New opens the exports' folders. A folder that is not there, or is none, is an error
// that wraps what the host says, as a *fs.PathError.
func New(o Options, exports ...Export) (*Server, error) {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	o.MaxNodes = cmp.Or(o.MaxNodes, 1<<18)
	o.MaxFiles = cmp.Or(o.MaxFiles, 128)
	s := &Server{
		o: o, byID: map[uint64]*volume{}, buffers: newBuffers(),
		lns: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var boot [8]byte
	_, _ = rand.Read(boot[:]) // never fails, see crypto/rand
	s.boot = binary.BigEndian.Uint64(boot[:])
	var err error
	if o.Journal != "" {
		s.journal, err = openJournal(o.Journal)
	}
	if err == nil {
		s.replays, err = newReplays(s.journal)
	}
	if err != nil {
		_ = s.Close() // the error before tells more
		return nil, fmt.Errorf("nfs journal: %w", err)
	}
	for _, e := range exports {
		v, err := s.export(e)
		if err != nil {
			_ = s.Close() // nothing was served
			return nil, err
		}
		s.volumes = append(s.volumes, v)
		s.byID[v.id] = v
	}
	return s, nil
}

func (s *Server) export(e Export) (*volume, error) {
	for _, v := range s.volumes {
		if v.id == e.ID || v.name == e.Name {
			return nil, fmt.Errorf("nfs: exports %s and %s are one", v.name, e.Name)
		}
	}
	v, err := openVolume(s.o, e)
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", e.Name, err)
	}
	return v, nil
}

// Serve answers on ln until the server is closed (nil) or ln fails, and returns when
// the connections it accepted have ended. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close() //nolint:errcheck // it has failed, or Close has closed it
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.lns[ln] = struct{}{}
	s.serves.Add(1)
	s.mu.Unlock()
	defer s.serves.Done()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		nc, err := ln.Accept()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.lns, ln)
			if s.closed {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		if c := s.admit(nc); c != nil {
			conns.Go(c.serve)
		}
	}
}

// admit makes a connection of nc, or closes it.
func (s *Server) admit(nc net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= maxConns || s.o.PrivilegedPorts && !privileged(nc.RemoteAddr()) {
		s.complain("refused a connection", slog.String("peer", nc.RemoteAddr().String()))
		_ = nc.Close() // nothing was written
		return nil
	}
	c := newConn(s, nc)
	s.conns[c] = struct{}{}
	return c
}

// privileged reports whether only the kernel and root can have bound addr.
func privileged(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.Port > 0 && tcp.Port < 1024
}

// drainTime is how long Close lets requests end that were being worked on.
const drainTime = time.Second

// Close ends the connections after the requests in work have been answered, waits for
// all that Serve has started, puts on the disk what was written and not synced, and
// closes the exports' folders. It may be called twice.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.serves.Wait()
		return nil
	}
	s.closed = true
	for ln := range s.lns {
		_ = ln.Close() // Serve hears of it
	}
	for c := range s.conns {
		c.drain(drainTime)
	}
	s.mu.Unlock()
	late := time.AfterFunc(drainTime, s.cancel)
	s.serves.Wait()
	late.Stop()
	s.cancel()
	for _, v := range s.volumes {
		v.close()
	}
	if s.journal != nil {
		s.journal.close()
	}
	return nil
}

// complainEvery is how much a guest can have written into the host's log.
const complainEvery = time.Second

// complain logs what went wrong with a guest's request, now and then.
func (s *Server) complain(what string, attrs ...slog.Attr) {
	now := time.Now().UnixNano()
	last := s.said.Load()
	if now-last < int64(complainEvery) || !s.said.CompareAndSwap(last, now) {
		return
	}
	s.o.Log.LogAttrs(s.ctx, slog.LevelWarn, "trouble with a guest's files", append([]slog.Attr{slog.String("what", what)}, attrs...)...)
}
