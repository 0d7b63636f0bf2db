package instance

import (
	"context"
	"errors"
	"net/netip"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Doors opens public ports of the host. Package router implements it.
type Doors interface {
	// Open listens at that address, port 0 being any that is free and will not be taken
	// by others for connections of their own. Each connection is joined to one that
	// connect makes. A port that is taken is a conflict.
	Open(at netip.AddrPort, connect Connect) (Door, error)
}

// Connect makes a connection to the guest, waking it if need be. The instance is held
// awake until the connection is closed. ctx bounds the call only. An error is a
// syscall.ECONNREFUSED when the guest is awake and nothing listens, an ErrDeleted when
// there is no instance any more; all others are reasons for not being awake.
type Connect func(ctx context.Context) (GuestConn, error)

// Door is an open public port.
type Door interface {
	// Port returns the number that was opened.
	Port() uint16

	// Close stops listening, at once, and breaks its connections off. It does not wait
	// for them.
	Close() error

	// Wait returns when all connections of a closed door have ended.
	Wait()
}

// doors are the open public ports of an instance, by the guest's port. The actor owns
// them.
type doors map[uint16]Door

// openDoor opens the public port of one Expose, and writes its number into it.
func (a *actor) openDoor(e *Expose) error {
	if a.world.Doors == nil {
		return fault.New(fault.Unavailable, "this daemon opens no ports")
	}
	guest := e.Guest
	d, err := a.world.Doors.Open(e.Address(), func(ctx context.Context) (GuestConn, error) { return a.connect(ctx, guest) })
	if err != nil {
		return a.portTaken(*e, err)
	}
	e.Public = d.Port()
	a.doors[guest] = d
	return nil
}

// portTaken names who has a port, if that is known.
func (a *actor) portTaken(e Expose, err error) error {
	if fault.KindOf(err) != fault.Conflict {
		return err
	}
	for _, own := range a.record.Spec.Expose {
		if own.Guest != e.Guest && a.doors[own.Guest] != nil && own.clashes(e) {
			return fault.New(fault.Conflict, "port %d leads to port %d of %s already", e.Public, own.Guest, a.spec.Handle).
				WithHint("choose another port, or: aegis instance unexpose %s %d", a.spec.Handle, own.Guest)
		}
	}
	if owner, guest := a.set.whoHas(e, a.id); owner != "" {
		return fault.New(fault.Conflict, "port %d is taken by the instance %s", e.Public, owner).
			WithHint("choose another port, or: aegis instance unexpose %s %d", owner, guest)
	}
	return err
}

// openDoors opens all ports that are not open. After an error those that it opened
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
			return err
		}
		opened = append(opened, e.Guest)
	}
	return nil
}

// reopenDoors opens the ports of an instance that an earlier daemon had. One that is
// taken meanwhile keeps the instance from nothing else.
func (a *actor) reopenDoors() {
	for i := range a.record.Spec.Expose {
		e := &a.record.Spec.Expose[i]
		if err := a.openDoor(e); err != nil {
			a.log.Error("open port", logattr.Err(err))
			a.remark("port %d of the host is closed: %v; it is tried again at the next: aegis instance start --name %s", e.Public, err, a.spec.Handle)
		}
	}
}

// changeDoor opens a port in the place of the one that e.Guest has, which stays open
// if that fails.
func (a *actor) changeDoor(old Expose, e *Expose) error {
	was := a.doors[e.Guest]
	switch {
	case was == nil:
		return a.openDoor(e)
	case old.Address() == e.Address():
		return nil
	case old.clashes(*e): // at another address: one after the other
		a.closeDoor(e.Guest)
		if err := a.openDoor(e); err != nil {
			return errors.Join(err, a.openDoor(&old))
		}
		return nil
	}
	if err := a.openDoor(e); err != nil {
		return err
	}
	a.retire(was)
	return nil
}

func (a *actor) closeDoor(guest uint16) {
	if d := a.doors[guest]; d != nil {
		delete(a.doors, guest)
		a.retire(d)
	}
}

func (a *actor) closeDoors() {
	for guest := range a.doors {
		a.closeDoor(guest)
	}
}

func (a *actor) retire(d Door) {
	if err := d.Close(); err != nil {
		a.log.Error("close port", logattr.Err(err))
	}
	a.ops.Go(d.Wait)
}
