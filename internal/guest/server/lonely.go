package server

import "time"

// ungreeted is how long the machine waits for its first host. A daemon greets it as
// soon as it runs: one that does not has died.
const ungreeted = 20 * time.Second

// setLonely sets how long the machine may be without a session before it ends.
func (s *Server) setLonely(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lonely = d
	if d == 0 && s.timer != nil {
		s.timer.Stop()
	}
}

// startLonely starts the clock at a session's end, stopLonely stops it.
func (s *Server) startLonely() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lonely > 0 && s.ctx.Err() == nil {
		s.timer = time.AfterFunc(s.lonely, func() { s.powerOff(0) })
	}
}

func (s *Server) stopLonely() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}

// powerOff ends the processes and the machine, once.
func (s *Server) powerOff(grace time.Duration) {
	s.off.Do(func() {
		s.power.Go(func() {
			s.conf.Table.Terminate(grace)
			s.conf.System.PowerOff()
		})
	})
}
