package instance

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestStopsTogether: to end many instances does not take as long as to end one after the
// other.
func TestStopsTogether(t *testing.T) {
	for how, most := range map[Leaving]time.Duration{PutAsleep: 25 * time.Second, StopAll: 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w, s := sleeper(t, func(w *stubWorld) { w.saving = 5 * time.Second })
			for i := range 15 {
				if _, err := s.Launch(t.Context(), Spec{Handle: fmt.Sprint("more-", i), Command: []string{"serve"}}); err != nil {
					t.Fatal(err)
				}
			}
			begin := time.Now()
			closeSet(t, s, how)
			if took := time.Since(begin); took > most {
				t.Errorf("%v: 16 instances took %v", how, took)
			}
			if m, _ := w.left(); m != 0 {
				t.Errorf("%d machines are left", m)
			}
		})
	}
}

// TestIDs makes ids as fast as can be, in many goroutines at once.
func TestIDs(t *testing.T) {
	const makers, each = 8, 5000
	var mu sync.Mutex
	seen := map[ID]bool{}
	var wg sync.WaitGroup
	for range makers {
		wg.Go(func() {
			mine := make([]ID, each)
			for i := range mine {
				mine[i] = NewID()
			}
			mu.Lock()
			defer mu.Unlock()
			for _, id := range mine {
				seen[id] = true
			}
		})
	}
	wg.Wait()
	if len(seen) != makers*each {
		t.Errorf("%d ids for %d instances", len(seen), makers*each)
	}
}
