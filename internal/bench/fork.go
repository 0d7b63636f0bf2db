package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

// manyForks is how many forks one request makes for the figures of many.
const manyForks = 30

// fork forks the server, and removes the forks. During is called while they run; nil is
// nobody.
func (s *server) fork(ctx context.Context, n int, during func([]api.Forked) error) (float64, error) {
	var forks []api.Forked
	took, err := timed(func() (err error) {
		forks, err = s.client.Fork(ctx, s.name, api.ForkRequest{Count: n})
		return err
	})
	if err == nil && during != nil {
		err = during(forks)
	}
	for _, f := range forks {
		err = errors.Join(err, s.delete(ctx, f.ID))
	}
	return took, err
}

// forkPause measures how long the programs of an instance that owns its memory stand still
// when it is forked, beside stop and save on the driver.
func forkPause(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	peer, err := w.partner(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			log, err := openLog(s.home.Log())
			if err != nil {
				return 0, err
			}
			if _, err := s.fork(ctx, 1, nil); err != nil {
				return 0, err
			}
			return log.forkPause(s.name)
		},
		floor: peer.save,
	}, nil
}

// forkOne measures a fork, until its program runs, beside the start of an instance from a
// template.
func forkOne(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) { return s.fork(ctx, 1, nil) },
		floor: func(ctx context.Context) (float64, error) {
			name := "start-" + string(instance.NewID())
			took, err := timed(func() error {
				_, err := s.launch(ctx, name, nil, "sleep", "1000000")
				return err
			})
			return took, errors.Join(err, s.delete(ctx, name))
		},
	}, nil
}

// forkMany measures thirty forks of one request, beside as many machines that are restored
// without a daemon until their guests answer.
func forkMany(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	b, err := w.barely()
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) { return s.fork(ctx, manyForks, nil) },
		floor:  b.restoreMany,
	}, nil
}

// restoreMany starts thirty clones of the template, as many at a time as the host has CPUs.
func (b *bare) restoreMany(ctx context.Context) (took float64, err error) {
	all := make([]*prepared, manyForks)
	for i := range all {
		if all[i], err = b.prepare(ctx, false); err != nil {
			return 0, err
		}
	}
	nodes, errs := make([]*node, manyForks), make([]error, manyForks)
	turns := make(chan struct{}, max(2, runtime.NumCPU()))
	took, err = timed(func() error {
		var starting sync.WaitGroup
		for i, p := range all {
			starting.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				nodes[i], errs[i] = p.start(ctx)
			})
		}
		starting.Wait()
		return errors.Join(errs...)
	})
	for _, n := range nodes {
		if n != nil {
			err = errors.Join(err, n.close(ctx))
		}
	}
	return took, err
}

// memPerFork measures what each of thirty forks takes of the host's memory, beside a clone of
// the template.
func memPerFork(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	b, err := w.barely()
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (each float64, err error) {
			_, err = s.fork(ctx, manyForks, func(forks []api.Forked) error {
				for _, f := range forks {
					info, err := s.client.Info(ctx, f.ID)
					if err != nil {
						return err
					}
					each += float64(info.MemoryUsed) / float64(size.MiB) / manyForks
				}
				return nil
			})
			return each, err
		},
		floor: func(ctx context.Context) (float64, error) {
			p, err := b.prepare(ctx, false)
			if err != nil {
				return 0, err
			}
			n, err := p.start(ctx)
			if err != nil {
				return 0, fmt.Errorf("a clone of the template: %w", err)
			}
			u, err := n.vm.Usage()
			return float64(u.Memory) / float64(size.MiB), errors.Join(err, n.close(ctx))
		},
	}, nil
}
