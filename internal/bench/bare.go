package bench

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/machine"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// bare is a home in which machines run without a daemon.
type bare struct {
	driver vmm.Driver
	ground *machine.Ground
	linker guestlink.Linker
	spec   instance.Spec
}

// barely returns the home of floors.
func (w *world) barely() (*bare, error) {
	if w.bare != nil {
		return w.bare, nil
	}
	home, err := w.makeHome(bareHome, w.conf.Home.Kernel())
	if err != nil {
		return nil, err
	}
	w.bare, err = w.newBare(home, w.driver)
	return w.bare, err
}

// newBare returns a home in which machines run on a driver.
func (w *world) newBare(home paths.Home, driver vmm.Driver) (*bare, error) {
	harness, err := paths.Program("aegis-harness")
	if err != nil {
		return nil, err
	}
	b := &bare{driver: driver, linker: guestlink.Linker{Log: w.log}, spec: instance.Spec{Command: []string{"true"}}}
	if err := b.spec.Complete(instance.Defaults{Memory: w.conf.Memory, VCPUs: w.conf.CPUs, Disk: w.conf.Disk}); err != nil {
		return nil, err
	}
	b.ground = machine.NewGround(machine.Options{
		Home: home, Harness: harness, Driver: driver, Linker: b.linker, Log: w.log, Templates: true, Timeout: w.conf.BootTimeout,
	})
	return b, nil
}

// node is a machine without a daemon.
type node struct {
	bare *bare
	id   instance.ID
	vm   vmm.Machine
	link instance.Guest
}

// prepared is a machine that has everything but a VMM.
type prepared struct {
	bare  *bare
	id    instance.ID
	magic guestproto.Magic
	plan  instance.Plan
}

// prepare lays out a machine, as a clone of the template or, if cold is set, for a boot.
func (b *bare) prepare(ctx context.Context, cold bool) (*prepared, error) {
	p := &prepared{bare: b, id: instance.NewID(), magic: guestproto.NewMagic()}
	var err error
	p.plan, err = b.ground.Prepare(ctx, p.id, b.spec, p.magic, cold)
	return p, err
}

// start starts it, and returns when its guest is ready for work.
func (p *prepared) start(ctx context.Context) (*node, error) {
	if p.plan.Release != nil {
		defer p.plan.Release()
	}
	vm, err := p.bare.driver.Start(ctx, p.plan.Recipe, p.plan.Source)
	if err != nil {
		return nil, err
	}
	n := &node{bare: p.bare, id: p.id, vm: vm}
	hello := guestproto.Hello{MinVersion: guestproto.MinVersion, Version: guestproto.Version, Owned: []guestproto.Owned{}}
	magic := p.magic
	if p.plan.Kind == instance.Clone {
		if err := vm.Resume(ctx); err != nil {
			return nil, errors.Join(err, n.close(ctx))
		}
		magic, hello.Rekey, hello.DiskBytes = p.plan.Magic, &p.magic, int64(p.bare.spec.Disk)
	}
	if n.link, err = p.bare.linker.Link(ctx, vm, magic, hello); err != nil {
		return nil, errors.Join(err, n.close(ctx))
	}
	return n, nil
}

// spawn starts a program and joins its output.
func (n *node) spawn(ctx context.Context, command ...string) (instance.Attachment, error) {
	id := guestproto.ExecID("exec-" + instance.NewID())
	if err := n.link.Spawn(ctx, guestproto.Spawn{ID: id, Command: command}); err != nil {
		return nil, err
	}
	return n.link.Attach(ctx, id, 0)
}

// exec runs true to its exit status.
func (n *node) exec(ctx context.Context) error {
	_, err := n.output(ctx, "true")
	return err
}

// output runs a command to its exit status, which must be 0, and returns what it printed.
func (n *node) output(ctx context.Context, command ...string) ([]byte, error) {
	att, err := n.spawn(ctx, command...)
	if err != nil {
		return nil, err
	}
	defer att.Close() //nolint:errcheck // it has ended
	var out, errs []byte
	for {
		f, err := att.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%s ended without a status", command[0])
		case err != nil:
			return nil, err
		case f.Type == frame.Stdout:
			out = append(out, f.Payload...)
		case f.Type == frame.Stderr:
			errs = append(errs, f.Payload...)
		case f.Type == frame.Exit:
			status, err := f.Status()
			if err == nil && status != 0 {
				err = fmt.Errorf("%s ended with status %d: %s", command[0], status, errs)
			}
			return out, err
		}
	}
}

// close ends the machine and removes its files.
func (n *node) close(ctx context.Context) error {
	var errs []error
	if n.link != nil {
		errs = append(errs, n.link.Close())
	}
	if err := n.vm.Kill(ctx); err != nil {
		return errors.Join(append(errs, fmt.Errorf("kill %s: %w", n.id, err))...)
	}
	return errors.Join(append(errs, n.bare.ground.Clear(n.id))...)
}
