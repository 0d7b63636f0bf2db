//go:build !linux

package hostclock

import (
	"sync"
	"time"
)

// Watch is a watch over the host's clock. This system has no event for jumps of its clock:
// the watch compares it, now and then, with the one that does not jump.
type Watch struct {
	jumps chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
}

const (
	// interval is how late a jump may be noticed.
	interval = 5 * time.Second
	// slack is what the clocks may differ after an interval without a jump.
	slack = 50 * time.Millisecond
)

// New begins to watch the clock, until Stop.
func New() (*Watch, error) {
	w := &Watch{jumps: make(chan struct{}, 1), quit: make(chan struct{})}
	w.wg.Go(w.run)
	return w, nil
}

// Jumps gets a value after the clock has jumped; of several jumps in a row perhaps one.
func (w *Watch) Jumps() <-chan struct{} { return w.jumps }

// Stop ends the watch.
func (w *Watch) Stop() error {
	close(w.quit)
	w.wg.Wait()
	return nil
}

func (w *Watch) run() {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for before := time.Now(); ; {
		select {
		case <-tick.C:
		case <-w.quit:
			return
		}
		now := time.Now()
		if wall, steady := now.Round(0).Sub(before.Round(0)), now.Sub(before); (wall - steady).Abs() > slack {
			select {
			case w.jumps <- struct{}{}:
			default: // one is told already
			}
		}
		before = now
	}
}
