package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guest/process"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// control serves the control stream: Hello first, then requests, and events.
func (s *session) control(ctx context.Context, stream *yamux.Stream) {
	first := false
	s.once.Do(func() { first = true })
	if !first {
		_ = refuse(stream, guestproto.CodeInvalid, "a second control stream")
		return
	}
	if accept(stream, guestproto.StreamReply{}) != nil {
		return
	}
	m, err := guestproto.ReadMessage(stream)
	if err != nil {
		return
	}
	read := time.Now()
	welcome, err := s.hello(ctx, m, read)
	if err != nil {
		_ = guestproto.WriteMessage(stream, guestproto.Message{ID: m.ID, Type: m.Type, Error: process.ErrorOf(err)}, nil)
		return
	}
	welcome.WorkedUS = time.Since(read).Microseconds()
	close(s.greeted) // before the host can know
	if guestproto.WriteMessage(stream, guestproto.Message{ID: m.ID, Type: m.Type}, welcome) != nil {
		return
	}
	s.requests(ctx, stream)
}

// hello does what the host asks for at the start of a session, in the order that
// keeps a clone from acting as its source: nothing runs before the thaw at the end.
func (s *session) hello(ctx context.Context, m guestproto.Message, read time.Time) (guestproto.Welcome, error) {
	var h guestproto.Hello
	if m.Type != guestproto.TypeHello {
		return guestproto.Welcome{}, &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf("%s before hello", m.Type)}
	}
	if err := m.Decode(&h); err != nil {
		return guestproto.Welcome{}, &guestproto.Error{Code: guestproto.CodeInvalid, Msg: err.Error()}
	}
	version := min(h.Version, guestproto.Version)
	if version < max(h.MinVersion, guestproto.MinVersion) {
		return guestproto.Welcome{}, &guestproto.Error{
			Code: guestproto.CodeVersion,
			Msg: fmt.Sprintf("the host speaks versions %d to %d of the protocol, the guest %d to %d",
				h.MinVersion, h.Version, guestproto.MinVersion, guestproto.Version),
		}
	}
	if h.Rekey != nil {
		s.conf.Port.Rekey(*h.Rekey)
	}
	s.setLonely(time.Duration(h.LonelyOffMS) * time.Millisecond)
	if h.Prepare {
		if err := s.conf.System.Prepare(ctx, h.DiskBytes); err != nil {
			return guestproto.Welcome{}, err
		}
		return s.welcome(version, nil), nil
	}
	if err := s.conf.System.Ready(ctx, h.DiskBytes); err != nil {
		return guestproto.Welcome{}, err
	}
	execs := s.conf.Table.Keep(h.Owned)
	if h.Identity != nil {
		if err := s.conf.System.Identify(*h.Identity); err != nil {
			return guestproto.Welcome{}, fmt.Errorf("set the identity: %w", err)
		}
	}
	if h.Thaw != nil {
		h.Thaw.UnixNano += time.Since(read).Nanoseconds() // all this has taken its time
		if err := s.conf.System.Thaw(*h.Thaw); err != nil {
			return guestproto.Welcome{}, fmt.Errorf("thaw: %w", err)
		}
	}
	return s.welcome(version, execs), nil
}

func (s *session) welcome(version int, execs []guestproto.Exec) guestproto.Welcome {
	return guestproto.Welcome{
		Version:   version,
		Harness:   s.conf.Harness,
		Abilities: s.abilities(),
		BootNonce: s.conf.BootNonce,
		Execs:     execs,
	}
}

// requests answers what comes after Hello. Each request runs by itself: one that
// takes long holds up no other.
func (s *session) requests(ctx context.Context, stream *yamux.Stream) {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan guestproto.Message, 16)
	answers := make(chan guestproto.Message)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		write(ctx, stream, answers, events)
	})
	s.mu.Lock()
	s.events = events
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.events = nil
		s.mu.Unlock()
		cancel()
		wg.Wait()
	}()
	for {
		m, err := guestproto.ReadMessage(stream)
		if err != nil {
			return
		}
		s.conf.Port.Confirm()
		wg.Go(func() {
			c := s.calls.do(m.ID, func() (any, error) { return s.request(m) })
			select {
			case <-c.done:
			case <-ctx.Done():
				return
			}
			select {
			case answers <- c.answer(m, process.ErrorOf):
			case <-ctx.Done():
			}
		})
	}
}

// write is the only writer of a control stream.
func write(ctx context.Context, stream *yamux.Stream, answers, events <-chan guestproto.Message) {
	for {
		var m guestproto.Message
		select {
		case m = <-answers:
		case m = <-events:
		case <-ctx.Done():
			return
		}
		if guestproto.WriteMessage(stream, m, nil) != nil {
			return
		}
	}
}

// request does what m asks for. It must bear being asked twice.
func (s *Server) request(m guestproto.Message) (any, error) {
	switch m.Type {
	case guestproto.TypeSpawn:
		return with(m, func(req guestproto.Spawn) (any, error) {
			e, err := s.conf.Table.Spawn(req)
			if err != nil {
				return nil, err
			}
			return guestproto.Spawned{PID: e.PID()}, nil
		})
	case guestproto.TypeKill:
		return with(m, func(req guestproto.Kill) (any, error) {
			e, err := s.conf.Table.Get(req.ID)
			if err != nil {
				return nil, err
			}
			return nil, e.Kill(req.Signal)
		})
	case guestproto.TypeFreeze:
		return with(m, func(req guestproto.Freeze) (any, error) {
			stuck, err := s.conf.System.Freeze(time.Duration(req.DeadlineMS) * time.Millisecond)
			return guestproto.Frozen{Stuck: stuck}, err
		})
	case guestproto.TypeThaw:
		return with(m, func(req guestproto.Thaw) (any, error) { return nil, s.conf.System.Thaw(req) })
	case guestproto.TypePowerOff:
		return with(m, func(req guestproto.PowerOff) (any, error) {
			s.powerOff(time.Duration(req.GraceMS) * time.Millisecond)
			return nil, nil
		})
	case guestproto.TypeMount:
		return with(m, func(req guestproto.Mount) (any, error) { return nil, s.conf.System.Mount(req) })
	case guestproto.TypeStats:
		return s.conf.System.Stats()
	case guestproto.TypeHello, guestproto.TypeStream, guestproto.TypeOOM:
	}
	return nil, &guestproto.Error{Code: guestproto.CodeUnsupported, Msg: fmt.Sprintf("request %q", m.Type)}
}

// with decodes the body of m for do.
func with[T any](m guestproto.Message, do func(T) (any, error)) (any, error) {
	var req T
	if err := m.Decode(&req); err != nil {
		return nil, &guestproto.Error{Code: guestproto.CodeInvalid, Msg: err.Error()}
	}
	return do(req)
}
