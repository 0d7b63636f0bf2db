package process

import (
	"io"
	"sync"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Stdin is the input of a process: what the host has sent and the process has not
// yet read waits here, so that frames behind it are not held up.
type Stdin struct {
	mu       sync.Mutex
	buf      []byte
	accepted uint64 // bytes that came from the host
	taken    uint64 // bytes that the process's pipe took, or that were thrown away
	eof      bool   // no more will come
	dead     bool   // the process reads no more
	changed  chan struct{}
}

func newStdin() *Stdin { return &Stdin{changed: make(chan struct{})} }

// Accept takes input from the host. It never blocks; more than a window of it is
// an error.
func (s *Stdin) Accept(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead || s.eof:
		s.accepted += uint64(len(b))
		s.taken = s.accepted
	case len(s.buf)+len(b) > guestproto.StdinWindow:
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: "more input than the window allows"}
	default:
		s.buf = append(s.buf, b...)
		s.accepted += uint64(len(b))
	}
	s.wake()
	return nil
}

// End says that no more input comes. It may be said again.
func (s *Stdin) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eof = true
	s.wake()
}

// State returns how many bytes were accepted and taken, and a channel that is
// closed when that changes.
func (s *Stdin) State() (accepted, taken uint64, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted, s.taken, s.changed
}

// kill throws away all input, what is here and what comes.
func (s *Stdin) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	s.buf, s.taken = nil, s.accepted
	s.wake()
}

func (s *Stdin) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// feed copies the input to w until it ends or w fails, and closes w.
func (s *Stdin) feed(w io.WriteCloser) {
	defer s.kill()
	defer w.Close() //nolint:errcheck // nobody can act on it: the process sees its input end either way
	for {
		s.mu.Lock()
		changed := s.changed
		b := s.buf
		stop := s.dead || s.eof && len(b) == 0
		s.mu.Unlock()
		switch {
		case stop:
			return
		case len(b) == 0:
			<-changed
			continue
		}
		n, err := w.Write(b[:min(len(b), 32<<10)])
		if err != nil {
			return
		}
		s.mu.Lock()
		if !s.dead {
			s.buf = s.buf[n:]
			s.taken += uint64(n) //nolint:gosec // never negative
			s.wake()
		}
		s.mu.Unlock()
	}
}
