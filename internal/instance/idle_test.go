package instance

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// use has the programs of a world use so much of a CPU from now on.
func (w *stubWorld) use(load float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.load = load
}

func (w *stubWorld) cross(bytes uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.crossed += bytes
}

func busyWith(t *testing.T, s *Set) string {
	t.Helper()
	v, err := s.Get("web")
	if err != nil {
		t.Fatal(err)
	}
	return v.Busy()
}

// TestBusyGuest: one that computes is awake, and sleeps its time after it has done so.
func TestBusyGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		w.use(.5)
		time.Sleep(10 * time.Minute)
		wantState(t, s, "web", Running)
		if got := busyWith(t, s); !strings.Contains(got, "50 %") {
			t.Errorf("it is busy with %q", got)
		}
		w.use(0)
		time.Sleep(55 * time.Second)
		wantState(t, s, "web", Running)
		time.Sleep(15 * time.Second)
		wantState(t, s, "web", Paused)
		if got := busyWith(t, s); got != "" {
			t.Errorf("asleep it is busy with %q", got)
		}
		closeSet(t, s, StopAll)
	})
}

// TestDownloadingGuest: one over whose network much goes is awake.
func TestDownloadingGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		for range 5 * 60 {
			w.cross(5 << 10)
			time.Sleep(time.Second)
		}
		wantState(t, s, "web", Running)
		if got := busyWith(t, s); !strings.Contains(got, "network") {
			t.Errorf("it is busy with %q", got)
		}
		time.Sleep(70 * time.Second)
		wantState(t, s, "web", Paused)
		closeSet(t, s, StopAll)
	})
}

// TestQuietGuest: a clock that ticks and a few packets keep nobody awake.
func TestQuietGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		w.use(.04)
		for range 65 {
			w.cross(3 << 10)
			time.Sleep(time.Second)
		}
		wantState(t, s, "web", Paused)
		closeSet(t, s, StopAll)
	})
}

// TestLeasesOnly: an instance whose user says so sleeps whatever its guest does.
func TestLeasesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStubWorld()
		w.runs = 24 * time.Hour
		s := NewSet(w.world())
		spec := Spec{Handle: "web", Command: []string{"serve"}, PauseAfter: time.Minute, IdlePolicy: LeasesOnly}
		if _, err := s.Launch(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		w.use(1)
		time.Sleep(61 * time.Second)
		wantState(t, s, "web", Paused)
		spec.Handle, spec.IdlePolicy = "other", "sometimes"
		if _, err := s.Launch(t.Context(), spec); fault.KindOf(err) != fault.Invalid {
			t.Errorf("a policy that is none: %v", err)
		}
		closeSet(t, s, StopAll)
	})
}

// TestBusyGuestIsPausedOnRequest: activity stands against the idle policy only.
func TestBusyGuestIsPausedOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := sleeper(t)
		w.use(1)
		time.Sleep(2 * time.Minute)
		if err := s.Pause(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		wantState(t, s, "web", Paused)
		closeSet(t, s, StopAll)
	})
}
