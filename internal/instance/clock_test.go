package instance

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSetClocks lets the host's clock jump: guests that run are told, one that does not
// answer keeps nobody for long, and none is woken for it.
func TestSetClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		for _, name := range []string{"one", "two", "asleep", "off"} {
			create(t, s, name)
			if err := s.Start(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Pause(t.Context(), "asleep"); err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(t.Context(), "off"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, w.thaw = range []time.Duration{0, time.Hour} {
			w.thaws = 0
			begin := time.Now()
			s.SetClocks(t.Context())
			if took := time.Since(begin); w.thaws != 2 || took > time.Minute {
				t.Errorf("%d of 2 clocks were set, in %v", w.thaws, took)
			}
		}
		wantState(t, s, "asleep", Paused)
		wantState(t, s, "off", Stopped)
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Error(err)
		}
	})
}
