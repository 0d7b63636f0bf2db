package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// meter shows how much has been copied, on a terminal only.
type meter struct {
	bytes atomic.Int64
	stop  func() // takes the line away; may be called again
}

// meterInterval is how often the line changes. Copies shorter than it show none.
const meterInterval = 250 * time.Millisecond

func (a *app) meter() *meter {
	m := &meter{stop: func() {}}
	if v, _ := a.lookup("NO_COLOR"); v != "" || !isTerminal(a.err) {
		return m
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(meterInterval)
		defer tick.Stop()
		begin := time.Now()
		for {
			select {
			case <-tick.C:
				n := float64(m.bytes.Load()) / 1e6
				_, _ = fmt.Fprintf(a.err, "\r%.1f MB, %.1f MB/s\x1b[K", n, n/time.Since(begin).Seconds()) // see say
			case <-quit:
				_, _ = fmt.Fprint(a.err, "\r\x1b[K") // see say
				return
			}
		}
	})
	m.stop = sync.OnceFunc(func() {
		close(quit)
		wg.Wait()
	})
	return m
}

// reader counts what is read from r.
func (m *meter) reader(r io.Reader) io.Reader { return &metered{m, r} }

type metered struct {
	m *meter
	r io.Reader
}

// Read implements io.Reader.
func (c *metered) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.m.bytes.Add(int64(n))
	return n, err
}
