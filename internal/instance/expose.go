package instance

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Expose is one port of a guest that is open on the host.
type Expose struct {
	Guest    uint16
	Public   uint16 // 0 is any; it is kept once it has been chosen
	Protocol Protocol
	Bind     netip.Addr `json:",omitzero"` // where it is open; the zero Addr is 127.0.0.1
	// ByGuest says that it was opened over the Guest API.
	ByGuest bool `json:",omitempty"`
}

// Protocol says what clients speak on a port. It changes nothing in what passes
// through: it is for people and for the HTTP router.
type Protocol string

// The protocols.
const (
	TCP  Protocol = "tcp"
	HTTP Protocol = "http"
)

// MaxExposed bounds the ports of one instance.
const MaxExposed = 64

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Address returns where on the host the port is open.
func (e Expose) Address() netip.AddrPort {
	at := e.Bind
	if !at.IsValid() {
		at = loopback
	}
	return netip.AddrPortFrom(at, e.Public)
}

// clashes reports whether two ports cannot be open at once.
func (e Expose) clashes(with Expose) bool {
	a, b := e.Address(), with.Address()
	return a.Port() == b.Port() && (a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// complete fills the defaults and says what is wrong with the rest.
func (e *Expose) complete() error {
	e.Protocol = cmp.Or(e.Protocol, HTTP)
	if e.Bind = e.Bind.Unmap(); e.Bind == loopback {
		e.Bind = netip.Addr{} // one way to say it, so that it can be compared
	}
	switch {
	case e.Guest == 0:
		return fault.New(fault.Invalid, "0 is not a port of a guest").WithHint("as in: --expose 8080:80")
	case e.Protocol != TCP && e.Protocol != HTTP:
		return fault.New(fault.Invalid, "%q is not a protocol of a port", e.Protocol).WithHint("it is tcp or http, as in: --expose 5432/tcp")
	case e.Bind.IsValid() && (e.Bind.Zone() != "" || e.Bind.IsMulticast()):
		return fault.New(fault.Invalid, "%v is not an address to listen on", e.Bind)
	}
	return nil
}

// completeExposes checks the ports of a Spec.
func completeExposes(all []Expose) error {
	if len(all) > MaxExposed {
		return fault.New(fault.Invalid, "%d ports are too many; an instance has at most %d", len(all), MaxExposed)
	}
	for i := range all {
		e := &all[i]
		if err := e.complete(); err != nil {
			return err
		}
		for _, other := range all[:i] {
			switch {
			case e.Guest == other.Guest:
				return fault.New(fault.Invalid, "port %d of the guest is exposed twice", e.Guest)
			case e.Public != 0 && e.clashes(other):
				return fault.New(fault.Invalid, "public port %d is used twice", e.Public)
			}
		}
	}
	return nil
}

// Expose opens a port of an instance, or changes what it is. What is open already as
// it is wanted stays as it is, connections included. It returns the port with its
// public number.
func (s *Set) Expose(ctx context.Context, ref string, e Expose) (Expose, error) {
	a, err := s.find(ref)
	if err != nil {
		return Expose{}, err
	}
	if err := e.complete(); err != nil {
		return Expose{}, err
	}
	err = a.instruct(ctx, func() error { return a.expose(&e) }) //nolint:contextcheck // begun is done, as all that is stored
	if err != nil {
		return Expose{}, s.refuse(a, err) // e may be the actor's still
	}
	return e, nil
}

// ExposeByGuest is Expose for programs in the guest, or in that of its parent, which may open
// so many ports and change no other.
func (s *Set) ExposeByGuest(ctx context.Context, ref string, e Expose, most int) (Expose, error) {
	a, err := s.find(ref)
	if err != nil {
		return Expose{}, err
	}
	if err := e.complete(); err != nil {
		return Expose{}, err
	}
	e.ByGuest = true
	err = a.instruct(ctx, func() error { //nolint:contextcheck // as in Expose
		if err := a.mayExpose(&e, most); err != nil || !e.ByGuest {
			return err
		}
		return a.expose(&e)
	})
	if err != nil {
		return Expose{}, s.refuse(a, err)
	}
	return e, nil
}

// mayExpose says why a guest may not open a port. One that its user has opened as the
// guest wants it is what e is afterwards.
func (a *actor) mayExpose(e *Expose, most int) error {
	n := 0
	for _, old := range a.record.Spec.Expose {
		switch {
		case old.Guest == e.Guest && old.ByGuest:
			return nil
		case old.Guest == e.Guest && old.Protocol == e.Protocol && (e.Public == 0 || e.Public == old.Public):
			*e = old
			return nil
		case old.Guest == e.Guest:
			return fault.New(fault.Denied, "port %d was opened on the host, and is not for the guest to change", e.Guest)
		case old.ByGuest:
			n++
		}
	}
	if n >= most {
		return fault.New(fault.Denied, "%d ports are open already, and may be %d", n, most).
			WithHint("close one; the capability max_expose_ports decides")
	}
	return nil
}

// UnexposeByGuest is Unexpose for programs in the guest: of what they have opened.
func (s *Set) UnexposeByGuest(ctx context.Context, ref string, guest uint16) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	err = a.instruct(ctx, func() error { //nolint:contextcheck // as in Expose
		if i := a.exposed(guest); i >= 0 && !a.record.Spec.Expose[i].ByGuest {
			return fault.New(fault.Denied, "port %d was opened on the host, and is not for the guest to close", guest)
		}
		return a.unexpose(guest)
	})
	return s.refuse(a, err)
}

// Unexpose closes a port of an instance, with its connections.
func (s *Set) Unexpose(ctx context.Context, ref string, guest uint16) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	err = a.instruct(ctx, func() error { return a.unexpose(guest) }) //nolint:contextcheck // as in Expose
	return s.refuse(a, err)
}

// exposed returns the place of a guest's port in the record, or -1.
func (a *actor) exposed(guest uint16) int {
	return slices.IndexFunc(a.record.Spec.Expose, func(e Expose) bool { return e.Guest == guest })
}

func (a *actor) expose(e *Expose) error {
	if a.snap.Goal == ToDeleted || a.snap.State == Erasing {
		return ErrDeleted
	}
	before := a.record.Spec.Expose
	after := slices.Clone(before)
	i := a.exposed(e.Guest)
	switch {
	case i >= 0:
		old := before[i]
		e.ByGuest = e.ByGuest || old.ByGuest
		e.Public = cmp.Or(e.Public, old.Public)
		if *e == old && (a.doors[e.Guest] != nil || !a.snap.Enabled) {
			return nil
		}
		if err := a.changeDoor(old, e); err != nil {
			return err
		}
		after[i] = *e
	case len(before) >= MaxExposed:
		return fault.New(fault.Conflict, "%s has %d ports, and can have no more", a.spec.Handle, MaxExposed).
			WithHint("close one: aegis instance unexpose %s PORT", a.spec.Handle)
	default:
		if err := a.openDoor(e); err != nil {
			return err
		}
		after = append(after, *e)
	}
	a.record.Spec.Expose = after
	err := a.save()
	if err != nil {
		a.record.Spec.Expose = before
		a.closeDoor(e.Guest)
		if a.snap.Enabled {
			err = errors.Join(err, a.openDoors())
		}
	}
	if !a.snap.Enabled {
		a.closeDoor(e.Guest) // its number is known now; it opens with the next start
	}
	return err
}

func (a *actor) unexpose(guest uint16) error {
	i := a.exposed(guest)
	if i < 0 {
		return fault.New(fault.NotFound, "port %d of %s is not exposed", guest, a.spec.Handle).
			WithHint("see: aegis instance info %s", a.spec.Handle)
	}
	before := a.record.Spec.Expose
	a.record.Spec.Expose = slices.Delete(slices.Clone(before), i, i+1)
	if err := a.save(); err != nil {
		a.record.Spec.Expose = before
		return err
	}
	a.closeDoor(guest)
	return nil
}
