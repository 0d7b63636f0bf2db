package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// IdlePolicy says what keeps an instance awake beside holds.
type IdlePolicy string

// The policies.
const (
	IdleDefault IdlePolicy = ""            // what the guest does by itself
	LeasesOnly  IdlePolicy = "leases_only" // nothing
)

func (s *Spec) completeIdle() error {
	switch s.IdlePolicy {
	case "default":
		s.IdlePolicy = IdleDefault
	case IdleDefault, LeasesOnly:
	default:
		return fault.New(fault.Invalid, "there is no idle policy %q", s.IdlePolicy).WithHint("it is default or leases_only")
	}
	return nil
}

// A guest is active by itself if, over a window, its programs use that share of one vCPU,
// or so many bytes a second cross its network card. What listens and ticks does less; the
// workspace and DNS do not count.
const (
	idleWindow = 5 * time.Second
	busyShare  = 0.05
	busyBytes  = 4 << 10
)

// idle is the time that an actor gives its instance to sleep, or to sleep deeper.
type idle struct {
	timer *time.Timer        // when nothing but time counts
	quiet chan struct{}      // closed when the guest has been quiet for its time; nil while nobody watches it
	stop  context.CancelFunc // of who watches
	armed bool               // nothing but time and the guest keeps it from sleeping
}

func newIdle() *idle {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &idle{timer: t, stop: func() {}}
}

// disarm ends the time.
func (i *idle) disarm() {
	i.timer.Stop()
	i.stop()
	i.quiet, i.armed = nil, false
}

// armIdle starts the time after which the instance falls deeper asleep, if there is
// one for its state.
func (a *actor) armIdle() {
	a.idle.disarm()
	a.idle.armed = true
	spec := &a.record.Spec // its settings change while it lives
	switch a.snap.State {  //nolint:exhaustive // it is not idle in others
	case Running:
		switch after := spec.PauseAfter; {
		case after == 0:
		case spec.IdlePolicy == LeasesOnly:
			a.idle.timer.Reset(after)
		default:
			a.watchGuest(after)
		}
	case Paused:
		// Only a save keeps what is in memory.
		if after := spec.StopAfter; after > 0 && a.world.Driver.Info().Abilities.Save {
			a.idle.timer.Reset(after)
		}
	}
}

// watchGuest closes idle.quiet when the guest has done nothing for the time after.
func (a *actor) watchGuest(after time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	quiet, l := make(chan struct{}), a.live
	a.idle.quiet, a.idle.stop = quiet, cancel
	a.ops.Go(func() {
		defer cancel()
		if a.awaitQuiet(ctx, l, after) {
			close(quiet)
		}
	})
}

// awaitQuiet reports false when ctx ends first.
func (a *actor) awaitQuiet(ctx context.Context, l *live, after time.Duration) bool {
	defer a.busy.Store(nil)
	last := a.usage(ctx, l)
	for left := after; left > 0; {
		window := time.NewTimer(min(left, idleWindow))
		select {
		case <-window.C:
		case <-ctx.Done():
			window.Stop()
			return false
		}
		now := a.usage(ctx, l)
		if what := now.busy(last); what != "" {
			a.busy.Store(&what)
			left = after
		} else {
			a.busy.Store(nil)
			left -= min(left, idleWindow)
		}
		last = now
	}
	return ctx.Err() == nil
}

// busyWith says what the guest does that keeps it awake, or is "".
func (a *actor) busyWith() string {
	if what := a.busy.Load(); what != nil {
		return *what
	}
	return ""
}

// usage is what a guest has used until a moment.
type usage struct {
	at    time.Time
	cpu   time.Duration // of its programs
	bytes uint64        // over its network card
}

// usage asks the guest. One that does not answer is taken to have used nothing.
func (a *actor) usage(ctx context.Context, l *live) usage {
	ctx, cancel := context.WithTimeout(ctx, idleWindow)
	defer cancel()
	var u usage
	if stats, err := l.guest.Stats(ctx); err == nil {
		u.cpu = time.Duration(stats.CPUUS) * time.Microsecond
	}
	if n, err := l.network(); err == nil {
		u.bytes = n.Crossed()
	}
	u.at = time.Now()
	return u
}

// busy says what makes a guest that has used u active, if something does, since it had
// used last.
func (u usage) busy(last usage) string {
	took := u.at.Sub(last.at)
	if took <= 0 {
		return ""
	}
	if share := float64(u.cpu-last.cpu) / float64(took); last.cpu > 0 && share >= busyShare {
		return fmt.Sprintf("its programs use %.0f %% of a CPU", 100*share)
	}
	if rate := float64(u.bytes-last.bytes) / took.Seconds(); u.bytes > last.bytes && rate >= busyBytes {
		return fmt.Sprintf("%.0f KB/s cross its network", rate/1e3)
	}
	return ""
}
