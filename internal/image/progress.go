package image

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// counters tells how far downloads are, whoever began them.
type counters struct {
	mu sync.Mutex
	m  map[string]*atomic.Int64
}

// of returns the counter of a layer.
func (c *counters) of(digest string) *atomic.Int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]*atomic.Int64{}
	}
	if c.m[digest] == nil {
		c.m[digest] = &atomic.Int64{}
	}
	return c.m[digest]
}

// tellEvery is how often somebody who waits for an image hears how far it is.
const tellEvery = 200 * time.Millisecond

// watch tells how much of some layers is here, until stop is called.
func (s *Store) watch(blobs []blob, tell func(api.ImageProgress)) (stop func()) {
	var total int64
	for _, b := range blobs {
		total += b.size
	}
	report := func() {
		var n int64
		for _, b := range blobs {
			n += min(s.counters.of(b.digest).Load(), b.size)
		}
		tell(api.ImageProgress{Status: "downloading", Current: n, Total: total})
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report()
			case <-quit:
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
	})
}
