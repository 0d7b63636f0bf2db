package instance

import (
	"context"
	"sync"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// SetClocks sets the clocks of all guests that run to the host's, after that has jumped.
// Those that sleep get theirs when they wake.
func (s *Set) SetClocks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.world.Limits.Thaw)
	defer cancel()
	var wg sync.WaitGroup
	for _, a := range s.all() {
		thaw := a.view.Load().thaw
		if thaw == nil {
			continue
		}
		wg.Go(func() {
			if err := thaw(ctx); err != nil && a.view.Load().State == Running { // or it sleeps by now
				a.log.WarnContext(ctx, "set the clock", logattr.Err(err))
			}
		})
	}
	wg.Wait()
}
