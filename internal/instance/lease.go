package instance

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Lease is a hold that a program in the guest takes over the Guest API: the instance does
// not fall asleep by itself before it ends. There is one for each instance. It goes with
// its program, and survives its daemon.
type Lease struct {
	Reason  string    `json:",omitempty"`
	Expires time.Time `json:",omitzero"` // zero is no lease
}

// The limits of a Lease.
const (
	MinLease       = time.Second
	MaxLease       = time.Hour
	MaxLeaseReason = 256 // bytes
)

// Held reports whether the lease keeps an instance awake now.
func (l Lease) Held() bool { return time.Now().Before(l.Expires) }

// leasing is the actor's part of a lease.
type leasing struct {
	hold  *hold // nil while it has none
	timer *time.Timer
}

func newLeasing() leasing {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return leasing{timer: t}
}

// Lease takes or renews the lease of an instance that is awake.
func (s *Set) Lease(ctx context.Context, ref string, ttl time.Duration, reason string) (Lease, error) {
	a, err := s.find(ref)
	if err != nil {
		return Lease{}, err
	}
	switch {
	case ttl < MinLease || ttl > MaxLease:
		return Lease{}, fault.New(fault.Invalid, "a lease of %v cannot be had", ttl).
			WithHint("it lasts %v to %v, and can be renewed", MinLease, MaxLease)
	case len(reason) > MaxLeaseReason:
		return Lease{}, fault.New(fault.Invalid, "the reason is too long").WithHint("keep it under %d bytes", MaxLeaseReason)
	case strings.ContainsFunc(reason, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }):
		// It is shown on terminals, and comes from the guest.
		return Lease{}, fault.New(fault.Invalid, "the reason %q is no line of text", reason).WithHint("leave control characters out")
	}
	l := Lease{reason, time.Now().Add(ttl).Round(0)}
	err = a.instruct(ctx, func() error { return a.setLease(l) }) //nolint:contextcheck // begun is done, as all that is stored
	return l, s.refuse(a, err)
}

// EndLease gives the lease of an instance back, if it has one.
func (s *Set) EndLease(ctx context.Context, ref string) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	err = a.instruct(ctx, func() error { return a.setLease(Lease{}) }) //nolint:contextcheck // as above
	return s.refuse(a, err)
}

func (a *actor) setLease(l Lease) error {
	switch {
	case a.snap.Goal == ToDeleted || a.snap.State == Erasing:
		return ErrDeleted
	case a.live == nil && l.Held():
		return ErrNotRunning
	}
	before := a.record.Lease
	a.record.Lease = l
	if err := a.save(); err != nil {
		a.record.Lease = before
		return err
	}
	if !l.Held() {
		a.endLease()
		return nil
	}
	a.takeLease()
	return nil
}

// takeLease makes the lease a hold, until it expires.
func (a *actor) takeLease() {
	l := a.record.Lease
	a.lease.timer.Reset(time.Until(l.Expires))
	owner := "lease"
	if l.Reason != "" {
		owner += ": " + l.Reason
	}
	if a.lease.hold != nil {
		a.lease.hold.owner = owner
		return
	}
	a.lease.hold = &hold{owner: owner, reply: make(chan answer, 1)}
	a.take(request{ev: Event{Kind: Acquire}, hold: a.lease.hold})
}

// settleLease ends the hold of a lease whose program has ended, and makes the lease that an
// earlier daemon gave a hold again, once its instance runs. It wakes nobody.
func (a *actor) settleLease() {
	switch {
	case a.lease.hold != nil && a.snap.State == Stopped && !a.snap.Hibernated:
		a.endLease()
	case a.lease.hold == nil && a.snap.State == Running && a.record.Lease.Held():
		a.takeLease()
	}
}

// endLease gives the hold back.
func (a *actor) endLease() {
	a.lease.timer.Stop()
	a.record.Lease = Lease{}
	if h := a.lease.hold; h != nil {
		a.lease.hold = nil
		a.forget(h)
	}
}
