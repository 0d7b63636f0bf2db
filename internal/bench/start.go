package bench

import (
	"context"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// coldBoot measures a run without templates until its program runs, beside a boot on the
// driver until the guest answers on the link.
func coldBoot(ctx context.Context, w *world) (*sampler, error) {
	b, err := w.barely()
	if err != nil {
		return nil, err
	}
	p, err := w.start(ctx, coldHome, "AEGIS_TEMPLATES=off")
	if err != nil {
		return nil, err
	}
	if err := p.run(ctx, nil); err != nil { // fills the host's caches
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (took float64, err error) {
			begin := time.Now()
			err = p.run(ctx, func() { took = since(begin) })
			return took, err
		},
		floor: func(ctx context.Context) (float64, error) {
			return b.timed(ctx, true, func(context.Context, *node) error { return nil })
		},
		end: func(ctx context.Context) error { return w.program(ctx, p.home, nil, "down", "--stop") },
	}, nil
}

// runTrue measures a run of true to its exit status, when nothing is left of its machine,
// beside a clone of the same template on the driver, and true over the link.
func runTrue(ctx context.Context, w *world) (*sampler, error) {
	p, err := w.product(ctx)
	if err != nil {
		return nil, err
	}
	b, err := w.barely()
	if err != nil {
		return nil, err
	}
	floor := func(ctx context.Context) (float64, error) {
		return b.timed(ctx, false, func(ctx context.Context, n *node) error { return n.exec(ctx) })
	}
	if _, err := floor(ctx); err != nil { // makes the template
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			return timed(func() error { return p.run(ctx, nil) })
		},
		floor: floor,
	}, nil
}

// timed returns how long it takes to start a machine that is laid out, and to do something
// with it.
func (b *bare) timed(ctx context.Context, cold bool, use func(context.Context, *node) error) (float64, error) {
	m, err := b.prepare(ctx, cold)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	n, err := m.start(ctx)
	if err != nil {
		return 0, err
	}
	err = use(ctx, n)
	took := since(begin)
	if closed := n.close(ctx); err == nil {
		err = closed
	}
	return took, err
}

// execTrue measures true in an instance that runs, to its exit status, beside the same over
// a link.
func execTrue(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			return timed(func() error {
				att, err := s.client.Exec(ctx, s.name, api.ExecRequest{Command: []string{"true"}})
				if err != nil {
					return err
				}
				return ended(att.Stream(ctx, client.Streams{}))
			})
		},
		floor: func(ctx context.Context) (float64, error) {
			return timed(func() error { return peer.exec(ctx) })
		},
	}, nil
}
