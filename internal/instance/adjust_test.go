package instance

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestAdjustIdle: new times count from the change on, in every state, and outlive the daemon.
func TestAdjustIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		adjust := func(c Settings) {
			t.Helper()
			if _, err := s.Adjust(t.Context(), "web", c); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Second)
		adjust(Settings{PauseAfter: new(10 * time.Minute)})
		time.Sleep(9 * time.Minute)
		wantState(t, s, "web", Running)
		adjust(Settings{PauseAfter: new(20 * time.Second)})
		time.Sleep(21 * time.Second)
		wantState(t, s, "web", Paused)
		adjust(Settings{StopAfter: new(time.Duration(0))})
		time.Sleep(24 * time.Hour / 2)
		wantState(t, s, "web", Paused)
		adjust(Settings{StopAfter: new(time.Minute)})
		time.Sleep(62 * time.Second)
		wantState(t, s, "web", Stopped)
		adjust(Settings{IdlePolicy: new(LeasesOnly)})
		w.use(1)
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Second)
		wantState(t, s, "web", Paused)
		for _, c := range []Settings{{IdlePolicy: new(IdlePolicy("never"))}, {PauseAfter: new(-time.Second)}} {
			if _, err := s.Adjust(t.Context(), "web", c); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%+v: %v", c, err)
			}
		}
		closeSet(t, s, Keep)
		for _, r := range w.records {
			if r.Spec.PauseAfter != 20*time.Second || r.Spec.StopAfter != time.Minute || r.Spec.IdlePolicy != LeasesOnly {
				t.Errorf("stored: %+v", r.Spec)
			}
		}
	})
}

// TestAdjustWhileHeld: what holds an instance is not touched by new times.
func TestAdjustWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t)
		a, _ := s.find("web")
		h, _, err := a.hold(t.Context(), Acquire, "test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Adjust(t.Context(), "web", Settings{PauseAfter: new(time.Second)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		wantState(t, s, "web", Running)
		a.release(h)
		time.Sleep(2 * time.Second)
		wantState(t, s, "web", Paused)
		closeSet(t, s, StopAll)
	})
}

// policies returns what the networks that there are allow.
func (s *stubNets) policies() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.nets {
		all = append(all, n.egress.Mode)
	}
	return all
}

// TestAdjustEgress: the network that runs follows at once, and so does the next.
func TestAdjustEgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		set := func(mode string) {
			t.Helper()
			if _, err := s.Adjust(t.Context(), "web", Settings{Mode: &mode}); err != nil {
				t.Fatal(err)
			}
		}
		set("none")
		if got := w.nets.policies(); !slices.Equal(got, []string{"none"}) {
			t.Errorf("running: %q", got)
		}
		if err := s.Stop(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		set("all")
		// One that changes while the machine is being started.
		go func() {
			time.Sleep(w.start / 2)
			mode := "public"
			_, _ = s.Adjust(t.Context(), "web", Settings{Mode: &mode})
		}()
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if got := w.nets.policies(); !slices.Equal(got, []string{"public"}) {
			t.Errorf("started: %q", got)
		}
		w.storeErr = errors.New("disk full")
		if _, err := s.Adjust(t.Context(), "web", Settings{Mode: new("none")}); !errors.Is(err, w.storeErr) {
			t.Errorf("not stored: %v", err)
		}
		if got := w.nets.policies(); !slices.Equal(got, []string{"public"}) {
			t.Errorf("after an error: %q", got)
		}
		w.storeErr = nil
		closeSet(t, s, StopAll)
	})
}

// TestTraffic: counts go on over machines, and denials are remembered.
func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		carry := func() {
			w.nets.mu.Lock()
			defer w.nets.mu.Unlock()
			for n := range w.nets.nets {
				n.traffic = n.traffic.plus(Traffic{1, 2, 3, 4, 5})
			}
		}
		denied := func() func(Denial) {
			w.nets.mu.Lock()
			defer w.nets.mu.Unlock()
			for n := range w.nets.nets {
				return n.denied
			}
			return nil
		}()
		carry()
		if err := s.Hibernate(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		if err := s.Resume(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		carry()
		for i := range 10 {
			denied(Denial{Time: time.Now(), Text: fmt.Sprintf("egress denied: %d", i%9)})
		}
		v, err := s.Get("web")
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Traffic(); got != (Traffic{2, 4, 6, 8, 10}) {
			t.Errorf("%+v", got)
		}
		got := v.Denials()
		if len(got) != maxDenials || got[0].Text != "egress denied: 2" || got[7].Text != "egress denied: 0" {
			t.Errorf("%+v", got)
		}
		closeSet(t, s, StopAll)
	})
}
