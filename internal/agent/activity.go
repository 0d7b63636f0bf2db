package agent

import (
	"context"
	"runtime/debug"
	"sync"
)

// activity counts runs, and tells when there are some and when there are none.
type activity struct {
	mu   sync.Mutex
	n    int
	busy chan struct{} // closed while n > 0
	idle chan struct{} // closed while n == 0
}

func newActivity() *activity {
	a := &activity{busy: make(chan struct{}), idle: make(chan struct{})}
	close(a.idle)
	return a
}

func (a *activity) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n++; a.n == 1 {
		close(a.busy)
		a.idle = make(chan struct{})
	}
}

func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n--; a.n == 0 {
		close(a.idle)
		a.busy = make(chan struct{})
	}
}

func (a *activity) channels() (busy, idle <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busy, a.idle
}

// keepAwake holds the machine while there are runs. With none it gives back all that it
// can do without: the machine, connections, memory.
func (a *Agent) keepAwake(ctx context.Context) {
	for {
		busy, _ := a.activity.channels()
		select {
		case <-busy:
		case <-ctx.Done():
			return
		}
		_, idle := a.activity.channels()
		hold, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-idle:
			case <-ctx.Done():
			}
			cancel()
		}()
		a.host.Hold(hold, "the agent is at work")
		<-stop
		a.web.CloseIdleConnections()
		a.host.CloseIdle()
		debug.FreeOSMemory()
	}
}
