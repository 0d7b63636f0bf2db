package daemon

import (
	"sync"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// leave is how the daemon ends. By a signal it leaves persistent instances running,
// for the daemon that follows: that is how a new build takes the place of an old one.
// Asked over the API it puts them to sleep first, or stops them.
type leave struct {
	once  sync.Once
	stop  bool          // no memory is to be kept; set before asked is closed
	asked chan struct{} // closed by withAll
}

func newLeave() *leave { return &leave{asked: make(chan struct{})} }

// withAll ends the daemon with all its instances.
func (l *leave) withAll(stop bool) {
	l.once.Do(func() {
		l.stop = stop
		close(l.asked)
	})
}

// how returns what becomes of instances.
func (l *leave) how() instance.Leaving {
	select {
	case <-l.asked:
		if l.stop {
			return instance.StopAll
		}
		return instance.PutAsleep
	default:
		return instance.Keep
	}
}
