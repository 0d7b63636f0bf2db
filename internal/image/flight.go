package image

import (
	"context"
	"sync"
)

// flights runs work that several may want at a time once. The work ends early when all
// who want it have left.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
	wg sync.WaitGroup
}

type flight struct {
	done    chan struct{} // closed when err is set
	err     error
	waiting int
	cancel  context.CancelFunc
}

func newFlights() *flights { return &flights{m: map[string]*flight{}} }

// do runs work under a key, or joins those who wait for it already. The context of work
// is not ctx.
func (f *flights) do(ctx context.Context, key string, work func(context.Context) error) error {
	for {
		x, mine := f.join(ctx, key, work)
		if !mine { // it was given up, and is about to end
			select {
			case <-x.done:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case <-x.done:
			f.leave(x)
			return x.err
		case <-ctx.Done():
			if f.leave(x) {
				<-x.done
			}
			return context.Cause(ctx)
		}
	}
}

// join returns the flight of that key. Unless joined, it was given up by all others.
func (f *flights) join(ctx context.Context, key string, work func(context.Context) error) (x *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x := f.m[key]; x != nil {
		if x.waiting == 0 {
			return x, false
		}
		x.waiting++
		return x, true
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	x = &flight{done: make(chan struct{}), waiting: 1, cancel: cancel}
	f.m[key] = x
	f.wg.Go(func() {
		x.err = work(own)
		f.mu.Lock()
		delete(f.m, key)
		f.mu.Unlock()
		cancel()
		close(x.done)
	})
	return x, true
}

// leave reports whether it was the last, and the work is ending.
func (f *flights) leave(x *flight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.waiting--; x.waiting > 0 {
		return false
	}
	x.cancel()
	return true
}
