package instance

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Expose is one port of a guest that is open on the host.
type Expose struct {
	Guest    uint16
	Public   uint16 // 0 is any; it is kept once it has been chosen
	Protocol Protocol
	Bind     netip.Addr `json:",omitzero"` // where it is open; the zero Addr is 127.0.0.1
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

// Address returns where on the host the port is open.
func (e Expose) Address() netip.AddrPort {
	at := e.Bind
	if !at.IsValid() {
		at = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.AddrPortFrom(at, e.Public)
}

// complete fills the defaults and says what is wrong with the rest.
func (e *Expose) complete() error {
	if e.Protocol == "" {
		e.Protocol = HTTP
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
	guest, public := map[uint16]bool{}, map[uint16]bool{}
	for i := range all {
		e := &all[i]
		if err := e.complete(); err != nil {
			return err
		}
		if guest[e.Guest] {
			return fault.New(fault.Invalid, "port %d of the guest is exposed twice", e.Guest)
		}
		if e.Public != 0 && public[e.Public] {
			return fault.New(fault.Invalid, "public port %d is used twice", e.Public)
		}
		guest[e.Guest], public[e.Public] = true, true
	}
	return nil
}

// Doors opens public ports of the host. Package router implements it.
type Doors interface {
	// Open listens at that address, port 0 being any that is free and will not be taken
	// by others for connections of their own. Each connection is joined to one that
	// connect makes. A port that is taken is a conflict.
	Open(at netip.AddrPort, connect Connect) (Door, error)
}

// Connect makes a connection to the guest, waking it if need be; it is given back by
// Close. ctx bounds the call only.
type Connect func(ctx context.Context) (GuestConn, error)

// Door is an open public port.
type Door interface {
	// Port returns the number that was opened.
	Port() uint16

	// Close stops listening, at once, and lets its connections end. It does not wait.
	Close() error

	// Wait returns when all connections of a closed door have ended.
	Wait()
}

// doors are the open public ports of an instance, by the guest's port. The actor owns
// them.
type doors map[uint16]Door

// errNoDoors is for worlds without a network.
var errNoDoors = fault.New(fault.Unavailable, "this daemon opens no ports")

// openDoor opens the public port of one Expose, and writes its number into it.
func (a *actor) openDoor(e *Expose) error {
	if a.world.Doors == nil {
		return errNoDoors
	}
	d, err := a.world.Doors.Open(e.Address(), func(ctx context.Context) (GuestConn, error) { return a.connect(ctx, e.Guest) })
	if err != nil {
		return err
	}
	e.Public = d.Port()
	a.doors[e.Guest] = d
	return nil
}

// openDoors opens all ports that are not open. After an error those that were opened
// are closed again.
func (a *actor) openDoors() error {
	var opened []uint16
	for i := range a.record.Spec.Expose {
		e := &a.record.Spec.Expose[i]
		if a.doors[e.Guest] != nil {
			continue
		}
		if err := a.openDoor(e); err != nil {
			for _, g := range opened {
				a.closeDoor(g)
			}
			return a.portTaken(e.Public, err)
		}
		opened = append(opened, e.Guest)
	}
	return nil
}

// portTaken names the instance that has a port, if one has.
func (a *actor) portTaken(port uint16, err error) error {
	if fault.KindOf(err) != fault.Conflict {
		return err
	}
	if owner := a.whoHas(port); owner != "" && owner != a.spec.Handle {
		return fault.New(fault.Conflict, "port %d is taken by the instance %s", port, owner).
			WithHint("choose another port, or: aegis instance unexpose %s", owner)
	}
	return err
}

// reopenDoors opens the ports of an instance that an earlier daemon had. One that is
// taken meanwhile keeps the instance from nothing else.
func (a *actor) reopenDoors() {
	for i := range a.record.Spec.Expose {
		e := &a.record.Spec.Expose[i]
		if err := a.openDoor(e); err != nil {
			err = a.portTaken(e.Public, err)
			a.log.Error("open port", logattr.Err(err))
			a.remark("port %d of the host is closed: %v; it is tried again at the next: aegis instance start --name %s", e.Public, err, a.spec.Handle)
		}
	}
}

func (a *actor) closeDoor(guest uint16) {
	d := a.doors[guest]
	if d == nil {
		return
	}
	delete(a.doors, guest)
	if err := d.Close(); err != nil {
		a.log.Error("close port", logattr.Err(err))
	}
	a.ops.Go(d.Wait)
}

func (a *actor) closeDoors() {
	for guest := range a.doors {
		a.closeDoor(guest)
	}
}

// Expose opens a port of an instance, or changes what it is. What is open already as
// it is wanted stays as it is. It returns the port with its public number.
func (s *Set) Expose(ctx context.Context, ref string, e Expose) (Expose, error) {
	a, err := s.find(ref)
	if err != nil {
		return e, err
	}
	if err := e.complete(); err != nil {
		return e, err
	}
	err = a.instruct(ctx, func() error { return a.expose(&e) })
	return e, s.refuse(a, err)
}

// Unexpose closes a port of an instance.
func (s *Set) Unexpose(ctx context.Context, ref string, guest uint16) error {
	a, err := s.find(ref)
	if err != nil {
		return err
	}
	return s.refuse(a, a.instruct(ctx, func() error { return a.unexpose(guest) }))
}

func (a *actor) exposed(guest uint16) int {
	return slices.IndexFunc(a.record.Spec.Expose, func(e Expose) bool { return e.Guest == guest })
}

func (a *actor) expose(e *Expose) error {
	if a.snap.Goal == ToDeleted || a.snap.State == Erasing {
		return ErrDeleted
	}
	i := a.exposed(e.Guest)
	if i >= 0 {
		old := a.record.Spec.Expose[i]
		if e.Public == 0 && e.Bind == old.Bind {
			e.Public = old.Public
		}
		if *e == old && (a.doors[e.Guest] != nil || !a.snap.Enabled) {
			return nil
		}
	} else if len(a.record.Spec.Expose) >= MaxExposed {
		return fault.New(fault.Conflict, "%s has %d ports, and can have no more", a.spec.Handle, MaxExposed).
			WithHint("close one: aegis instance unexpose %s PORT", a.spec.Handle)
	}
	before := slices.Clone(a.record.Spec.Expose)
	if err := a.exchangeDoor(i, e); err != nil {
		return err
	}
	if i >= 0 {
		a.record.Spec.Expose[i] = *e
	} else {
		a.record.Spec.Expose = append(before[:len(before):len(before)], *e)
	}
	if err := a.save(); err != nil {
		a.closeDoor(e.Guest)
		a.record.Spec.Expose = before
		return errors.Join(err, a.openDoors())
	}
	return nil
}

// exchangeDoor opens a port in the place of entry i, if that is not negative. The old
// one is closed only when the new one is open, unless they are the same.
func (a *actor) exchangeDoor(i int, e *Expose) error {
	old := a.doors[e.Guest]
	if i >= 0 && old != nil && a.record.Spec.Expose[i].Address() == e.Address() {
		return nil // only its protocol changes
	}
	delete(a.doors, e.Guest)
	if err := a.openDoor(e); err != nil {
		if old != nil {
			a.doors[e.Guest] = old
		}
		return a.portTaken(e.Public, err)
	}
	if old != nil {
		fresh := a.doors[e.Guest]
		a.doors[e.Guest] = old
		a.closeDoor(e.Guest)
		a.doors[e.Guest] = fresh
	}
	if !a.snap.Enabled {
		a.closeDoor(e.Guest) // its number is known now; it opens with the next start
	}
	return nil
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
