package machine

import (
	"context"
	"errors"
	"fmt"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// furnish has a template mount an empty workspace: what is mounted is the same for all
// instances, and a clone finds its own behind it. The workspace is served until stop,
// which comes after the template has been paused, or when that has failed.
func (g *Ground) furnish(ctx context.Context, m vmm.Machine, link instance.Guest) (stop func() error, err error) {
	stop = func() error { return nil }
	if g.networks == nil || g.workspaces == nil {
		return stop, nil
	}
	// It has the name of an instance, and goes the way of its leftovers if this process dies.
	id := instance.NewID()
	n, err := g.networks.Open(id, instance.Spec{Egress: instance.Egress{Mode: "none"}}, func(instance.Denial) {})
	if err != nil {
		return stop, fmt.Errorf("network of a template: %w", err)
	}
	ws, err := g.workspaces.Open(id, instance.Folders{}, instance.Begins)
	if err != nil {
		return n.Close, fmt.Errorf("workspace of a template: %w", err)
	}
	served := make(chan error, 1)
	stop = func() error {
		err := errors.Join(ws.Close(), n.Close())
		if served != nil {
			err = errors.Join(err, <-served)
		}
		return errors.Join(err, g.workspaces.Clear(id), g.Clear(id))
	}
	ln, err := n.Listen(guestproto.MountPort)
	if err != nil {
		served = nil
		return stop, fmt.Errorf("workspace of a template: %w", err)
	}
	go func() { served <- ws.Serve(ln) }()
	conn, err := m.AttachNetwork(ctx)
	if err != nil {
		return stop, fmt.Errorf("network of a template: %w", err)
	}
	n.Attach(conn)
	if err := link.Mount(ctx, ws.Mount()); err != nil {
		return stop, fmt.Errorf("workspace of a template: %w", err)
	}
	return stop, nil
}
