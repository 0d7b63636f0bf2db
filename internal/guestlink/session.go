package guestlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

const (
	// maxOpening bounds the streams that wait for a guest's answer; a guest that is
	// paused, or malicious, answers none.
	maxOpening = 64
	// eventInterval bounds how often a guest can make the host write a log line.
	eventInterval = time.Second
)

// forever replaces time limits of yamux: a guest may be paused for days.
const forever = 10 * 365 * 24 * time.Hour

var past = time.Unix(1, 0)

// session is one life of the pipe.
type session struct {
	log  *slog.Logger
	conn *guard
	mux  *yamux.Session
	stop func() bool
	out  chan guestproto.Message // to the control stream
	slot chan struct{}           // taken while a stream is being opened
	apis chan struct{}           // taken by each connection to the Guest API, and by who waits for one
	done <-chan struct{}         // closed when the session is over

	waiters chan struct{} // taken while a stream waits for a connection to the Guest API

	mu      sync.Mutex
	waiting map[uint64]chan<- guestproto.Message
	over    bool
	why     error
	wg      sync.WaitGroup
}

// halfClosed is how long a stream goes on in one direction after the other has ended:
// a client that has said all may wait long for its answer. A guest that never ends its
// own direction costs a closed stream for that long.
const halfClosed = time.Hour

func muxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	c.StreamCloseTimeout = halfClosed
	c.ConnectionWriteTimeout = forever
	c.MaxStreamWindowSize = 1 << 20
	c.LogOutput = io.Discard
	return c
}

// newSession starts yamux on conn. The end of ctx ends the session.
func newSession(ctx context.Context, log *slog.Logger, conn *guard) *session {
	mux, err := yamux.Client(conn, muxConfig())
	if err != nil {
		panic(fmt.Sprintf("yamux refuses its configuration: %v", err))
	}
	return &session{
		log: log, conn: conn, mux: mux,
		stop:    context.AfterFunc(ctx, func() { _ = conn.Close() }),
		out:     make(chan guestproto.Message),
		slot:    make(chan struct{}, maxOpening),
		apis:    make(chan struct{}, maxAPIConns),
		waiters: make(chan struct{}, maxAPIConns),
		done:    mux.CloseChan(),
		waiting: map[uint64]chan<- guestproto.Message{},
	}
}

// end breaks the session. It does not wait.
func (s *session) end(why error) {
	s.mu.Lock()
	if s.why == nil {
		s.why = why
	}
	s.mu.Unlock()
	_ = s.conn.Close() // yamux notices
}

// wait waits until nothing of the session runs any more. The session has ended, or
// end was called.
func (s *session) wait() {
	<-s.done
	s.stop()
	_ = s.mux.Close() // returns when yamux's own goroutines have ended
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// spawn runs f in a goroutine of the session, unless that is over.
func (s *session) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return false
	}
	s.wg.Go(f)
	return true
}

// fault returns why the session ended if that was the guest's doing, else
// errSessionEnded.
func (s *session) fault(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.why != nil:
		return s.why
	case err == nil:
		return errSessionEnded
	}
	return fmt.Errorf("%w: %w", errSessionEnded, err)
}

// greet opens the control stream, says hello and starts the stream's goroutines. It
// returns how long hello and its answer were on their way, too.
func (s *session) greet(id uint64, hello guestproto.Hello) (welcome guestproto.Welcome, took time.Duration, err error) {
	stream, err := s.mux.OpenStream()
	if err != nil {
		return welcome, 0, s.fault(err)
	}
	if _, err := exchange(stream, guestproto.StreamHeader{Kind: guestproto.StreamControl}); err != nil {
		return welcome, 0, s.unlessSaid(err)
	}
	sent := time.Now()
	hello.Thaw = newThaw()
	if err := guestproto.WriteMessage(stream, guestproto.Message{ID: id, Type: guestproto.TypeHello}, hello); err != nil {
		return welcome, 0, s.fault(err)
	}
	m, err := guestproto.ReadMessage(stream)
	switch {
	case err != nil:
		return welcome, 0, s.unlessSaid(err)
	case m.ID != id:
		return welcome, 0, broken("an answer to request %d before the one to hello", m.ID)
	case m.Error != nil:
		return welcome, 0, m.Error
	}
	if err := m.Decode(&welcome); err != nil {
		return welcome, 0, broken("%v", err)
	}
	s.spawn(func() { s.read(stream) })
	s.spawn(func() { s.write(stream) })
	worked := time.Duration(welcome.WorkedUS) * time.Microsecond // a guest that lies has its clock wrong
	return welcome, time.Since(sent) - worked, nil
}

// unlessSaid returns what the guest itself said in err, else the session's end.
func (s *session) unlessSaid(err error) error {
	if _, ok := errors.AsType[*guestproto.Error](err); ok {
		return err
	}
	return s.fault(err)
}

// exchange writes a stream's header and reads the reply.
func exchange(stream *yamux.Stream, header guestproto.StreamHeader) (guestproto.StreamReply, error) {
	var reply guestproto.StreamReply
	if err := guestproto.WriteMessage(stream, guestproto.Message{Type: guestproto.TypeStream}, header); err != nil {
		return reply, err
	}
	m, err := guestproto.ReadMessage(stream)
	switch {
	case err != nil:
		return reply, err
	case m.Error != nil:
		return reply, m.Error
	case m.Type != guestproto.TypeStream:
		return reply, broken("%q for a stream's reply", clean(string(m.Type)))
	}
	return reply, m.Decode(&reply)
}

// read hands the guest's answers to those who wait for them.
func (s *session) read(stream *yamux.Stream) {
	var last time.Time
	for {
		m, err := guestproto.ReadMessage(stream)
		if err != nil {
			s.end(s.fault(err))
			return
		}
		if m.ID == 0 {
			if now := time.Now(); now.Sub(last) >= eventInterval {
				last = now
				s.event(m)
			}
			continue
		}
		s.mu.Lock()
		answer := s.waiting[m.ID]
		delete(s.waiting, m.ID)
		s.mu.Unlock()
		if answer != nil { // else its asker has gone
			answer <- m
		}
	}
}

func (s *session) event(m guestproto.Message) {
	var oom guestproto.OOM
	if m.Type != guestproto.TypeOOM || m.Decode(&oom) != nil {
		return // of a later version, or nonsense
	}
	s.log.Warn("guest out of memory", slog.String("process", clean(oom.Name)), slog.String("exec", clean(string(oom.Exec))))
}

// write is the only writer of the control stream.
func (s *session) write(stream *yamux.Stream) {
	for {
		select {
		case m := <-s.out:
			if err := guestproto.WriteMessage(stream, m, nil); err != nil {
				s.end(s.fault(err))
				return
			}
		case <-s.done:
			return
		}
	}
}

// call sends a request and waits for its answer.
func (s *session) call(ctx context.Context, m guestproto.Message) (guestproto.Message, error) {
	answer := make(chan guestproto.Message, 1)
	s.mu.Lock()
	s.waiting[m.ID] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, m.ID)
		s.mu.Unlock()
	}()
	select {
	case s.out <- m:
	case <-s.done:
		return m, s.fault(nil)
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
	select {
	case got := <-answer:
		return got, nil
	case <-s.done:
		return m, s.fault(nil)
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
}

// open opens a stream. yamux cannot be interrupted in that, so it is done by a
// goroutine of the session, which stays behind when ctx ends first.
func (s *session) open(ctx context.Context, header guestproto.StreamHeader) (*yamux.Stream, guestproto.StreamReply, error) {
	return s.openOn(ctx, s.slot, header)
}

// openOn is open, with one of other slots.
func (s *session) openOn(ctx context.Context, slots chan struct{}, header guestproto.StreamHeader) (*yamux.Stream, guestproto.StreamReply, error) {
	type result struct {
		stream *yamux.Stream
		reply  guestproto.StreamReply
		err    error
	}
	select {
	case slots <- struct{}{}:
	case <-s.done:
		return nil, guestproto.StreamReply{}, s.fault(nil)
	case <-ctx.Done():
		return nil, guestproto.StreamReply{}, context.Cause(ctx)
	}
	results := make(chan result)
	started := s.spawn(func() {
		defer func() { <-slots }()
		var r result
		if r.stream, r.err = s.mux.OpenStream(); r.err == nil {
			r.reply, r.err = exchange(r.stream, header)
		}
		select {
		case results <- r:
			if r.err == nil {
				return
			}
		case <-ctx.Done():
		}
		if r.stream != nil {
			_ = r.stream.Close() // nobody wants it
		}
	})
	if !started {
		return nil, guestproto.StreamReply{}, errSessionEnded
	}
	select {
	case r := <-results:
		if r.err != nil {
			r.err = s.unlessSaid(r.err)
		}
		return r.stream, r.reply, r.err
	case <-ctx.Done():
		return nil, guestproto.StreamReply{}, context.Cause(ctx)
	}
}
