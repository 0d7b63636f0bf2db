package daemon

import "sync"

// leave is how the daemon ends. By a signal it leaves persistent instances running,
// for the daemon that follows: that is how a new build takes the place of an old one.
// Asked over the API it stops them first.
type leave struct {
	once  sync.Once
	asked chan struct{} // closed by stopAll
}

func newLeave() *leave { return &leave{asked: make(chan struct{})} }

// stopAll ends the daemon with all its instances.
func (l *leave) stopAll() { l.once.Do(func() { close(l.asked) }) }

func (l *leave) stopsAll() bool {
	select {
	case <-l.asked:
		return true
	default:
		return false
	}
}
