package fake

import (
	"sync"
	"time"
)

// deadline is a moment after which calls fail, as net.Conn has them. The zero
// value, and nil, never come.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	late  chan struct{} // closed when the deadline has passed
}

// set moves the deadline. Calls that wait notice it: their channel is only
// replaced after it was closed.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.late // the timer has fired, and will close it
	}
	d.timer = nil
	if d.late == nil || isClosed(d.late) {
		d.late = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	if until := time.Until(t); until > 0 {
		late := d.late
		d.timer = time.AfterFunc(until, func() { close(late) })
		return
	}
	close(d.late)
}

// passed returns a channel that is closed when the deadline has passed.
func (d *deadline) passed() <-chan struct{} {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.late == nil {
		d.late = make(chan struct{})
	}
	return d.late
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
