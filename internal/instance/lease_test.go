package instance

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func holds(t *testing.T, s *Set) []HoldView {
	t.Helper()
	synctest.Wait()
	v, err := s.Get("web")
	if err != nil {
		t.Fatal(err)
	}
	return v.Holds
}

// A lease keeps an instance awake over its idle time, and no longer.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t)
		lease := func(ttl time.Duration, reason string) {
			t.Helper()
			if _, err := s.Lease(t.Context(), "web", ttl, reason); err != nil {
				t.Fatal(err)
			}
		}
		lease(3*time.Minute, "build")
		time.Sleep(2 * time.Minute)
		lease(4*time.Minute, "test") // renewed, not added
		if h := holds(t, s); len(h) != 1 || h[0].Owner != "lease: test" {
			t.Errorf("holds %v", h)
		}
		if v, _ := s.Get("web"); !v.Lease.Held() || v.Lease.Reason != "test" {
			t.Errorf("lease %v", v.Lease)
		}
		time.Sleep(4*time.Minute - time.Second)
		wantState(t, s, "web", Running)
		time.Sleep(2 * time.Second)
		if v, _ := s.Get("web"); v.Lease.Held() || len(v.Holds) > 0 {
			t.Errorf("after its time: %v, %v", v.Lease, v.Holds)
		}
		time.Sleep(62 * time.Second)
		wantState(t, s, "web", Paused)
		try(t, s.Resume(t.Context(), "web"))
		lease(time.Hour, "")
		try(t, s.EndLease(t.Context(), "web"))
		try(t, s.EndLease(t.Context(), "web"))
		if h := holds(t, s); len(h) != 0 {
			t.Errorf("holds %v", h)
		}
		for _, reason := range []string{"\x1b[2J", "two\nlines", "\xff", strings.Repeat("x", MaxLeaseReason+1)} {
			if _, err := s.Lease(t.Context(), "web", time.Minute, reason); fault.KindOf(err) != fault.Invalid {
				t.Errorf("reason %q: %v", reason, err)
			}
		}
		for _, ttl := range []time.Duration{0, -time.Second, MinLease - 1, MaxLease + 1} {
			if _, err := s.Lease(t.Context(), "web", ttl, ""); fault.KindOf(err) != fault.Invalid {
				t.Errorf("a lease of %v: %v", ttl, err)
			}
		}
		closeSet(t, s, StopAll)
	})
}

// An explicit request is obeyed; the lease goes on, and ends with the program.
func TestLeaseAndRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := sleeper(t)
		_, err := s.Lease(t.Context(), "web", 10*time.Minute, "")
		try(t, err)
		try(t, s.Pause(t.Context(), "web"))
		try(t, s.Hibernate(t.Context(), "web"))
		try(t, s.Resume(t.Context(), "web"))
		time.Sleep(3 * time.Minute)
		wantState(t, s, "web", Running)
		try(t, s.Stop(t.Context(), "web"))
		if v, _ := s.Get("web"); v.Lease.Held() || len(holds(t, s)) > 0 {
			t.Errorf("a lease without a program: %v, %v", v.Lease, v.Holds)
		}
		if _, err := s.Lease(t.Context(), "web", time.Minute, ""); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a lease of one that is stopped: %v", err)
		}
		try(t, s.Start(t.Context(), "web"))
		time.Sleep(62 * time.Second)
		wantState(t, s, "web", Paused)
		closeSet(t, s, StopAll)
	})
}

// A lease lasts for the rest of its time under another daemon, which it makes wake nobody.
func TestLeaseSurvivesDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		_, err := s.Lease(t.Context(), "web", 10*time.Minute, "build")
		try(t, err)
		closeSet(t, s, Keep)
		time.Sleep(5 * time.Minute)
		s = NewSet(w.world())
		try(t, s.Recover(t.Context()))
		if h := holds(t, s); len(h) != 1 || h[0].Owner != "lease: build" {
			t.Errorf("holds %v", h)
		}
		time.Sleep(5*time.Minute - time.Second)
		wantState(t, s, "web", Running)
		time.Sleep(64 * time.Second)
		wantState(t, s, "web", Paused)

		try(t, s.Resume(t.Context(), "web"))
		_, err = s.Lease(t.Context(), "web", 10*time.Minute, "")
		try(t, err)
		closeSet(t, s, PutAsleep)
		s = NewSet(w.world())
		try(t, s.Recover(t.Context()))
		wantState(t, s, "web", Stopped)
		if !isHibernated(t, s) {
			t.Error("the lease woke it")
		}
		closeSet(t, s, Keep)
	})
}
