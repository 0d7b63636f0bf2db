package hostclock

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch is a watch over the host's clock.
type Watch struct {
	timer *os.File
	jumps chan struct{}
	wg    sync.WaitGroup
}

// New begins to watch the clock, until Stop.
func New() (*Watch, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the clock: %w", err)
	}
	w := &Watch{timer: os.NewFile(uintptr(fd), "clock"), jumps: make(chan struct{}, 1)}
	if err := arm(fd); err != nil {
		return nil, errors.Join(err, w.timer.Close())
	}
	w.wg.Go(w.run)
	return w, nil
}

// arm sets the timer to a time that never comes. Each jump of the clock cancels it:
// timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
func arm(fd int) error {
	never := &unix.ItimerSpec{Value: unix.NsecToTimespec(math.MaxInt64)}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, never, nil); err != nil && !errors.Is(err, unix.ECANCELED) {
		return fmt.Errorf("watch the clock: %w", err)
	}
	return nil
}

// Jumps gets a value after the clock has jumped; of several jumps in a row perhaps one.
func (w *Watch) Jumps() <-chan struct{} { return w.jumps }

// Stop ends the watch.
func (w *Watch) Stop() error {
	err := w.timer.Close()
	w.wg.Wait()
	return err
}

// run ends when the timer is closed.
func (w *Watch) run() {
	var expirations [8]byte
	for {
		_, err := w.timer.Read(expirations[:])
		if !errors.Is(err, unix.ECANCELED) {
			return
		}
		select {
		case w.jumps <- struct{}{}:
		default: // one is told already
		}
	}
}
