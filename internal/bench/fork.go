package bench

import (
	"context"
	"errors"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// forkPause measures how long clients wait for an instance that is being forked: the
// longest of the requests that were made meanwhile, one after the other. Beside it stop and
// save on the driver.
func forkPause(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			if err := s.own(ctx); err != nil {
				return 0, err
			}
			longest := s.longest(ctx)
			_, forks, err := s.fork(ctx, 1)
			took, asked := longest()
			return took, errors.Join(err, asked, s.deleteAll(ctx, forks))
		},
		floor: func(ctx context.Context) (float64, error) { return peer.save(ctx) },
	}, nil
}

// forkPauseClone is forkPause of an instance that shares its memory with the template, as it
// does from its start until it has slept: all that it has written is saved while it stands.
// Beside it the same of such a machine on the driver.
func forkPauseClone(ctx context.Context, w *world) (*sampler, error) {
	p, err := w.product(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			s, err := p.newServer(ctx, "start-"+string(instance.NewID()))
			if err != nil {
				return 0, err
			}
			longest := s.longest(ctx)
			_, forks, err := s.fork(ctx, 1)
			took, asked := longest()
			return took, errors.Join(err, asked, p.deleteAll(ctx, append(forks, s.name)))
		},
		floor: func(ctx context.Context) (float64, error) {
			peer, err := w.newPeer(ctx, false)
			if err != nil {
				return 0, err
			}
			if err := fetch(ctx, peer.dial, 1); err != nil {
				return 0, errors.Join(err, peer.close(ctx))
			}
			took, err := peer.save(ctx)
			return took, errors.Join(err, peer.close(ctx))
		},
	}, nil
}

// longest begins to ask the server for a byte again and again. What it returns ends that,
// and says how long the longest request took.
func (s *server) longest(ctx context.Context) func() (float64, error) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var most float64
	var failed error
	wg.Go(func() {
		for {
			took, err := s.firstByte(ctx)
			if err != nil {
				failed = err
				return
			}
			most = max(most, took)
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	return func() (float64, error) {
		close(stop)
		wg.Wait()
		return most, failed
	}
}

// own makes the server own its memory, and have it awake.
func (s *server) own(ctx context.Context) error {
	if err := s.hibernate(ctx); err != nil {
		return err
	}
	_, err := s.firstByte(ctx)
	return err
}

// fork makes so many forks of the server, and returns how long that took until their
// programs ran.
func (s *server) fork(ctx context.Context, n int) (took float64, ids []string, err error) {
	var forks []api.Forked
	took, err = timed(func() (err error) {
		forks, err = s.client.Fork(ctx, s.name, api.ForkRequest{Count: n})
		return err
	})
	for _, f := range forks {
		ids = append(ids, f.ID)
	}
	return took, ids, err
}

// starts makes so many instances from a template, at the same time.
func (p *product) starts(ctx context.Context, n int) (took float64, ids []string, err error) {
	errs := make([]error, n)
	for range n {
		ids = append(ids, "start-"+string(instance.NewID()))
	}
	took, err = timed(func() error {
		var wg sync.WaitGroup
		for i, id := range ids {
			wg.Go(func() { _, errs[i] = p.launch(ctx, id, nil, "sleep", "1000000") })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	return took, ids, err
}

// deleteAll removes instances.
func (p *product) deleteAll(ctx context.Context, refs []string) error {
	errs := make([]error, len(refs))
	var wg sync.WaitGroup
	for i, ref := range refs {
		wg.Go(func() { errs[i] = p.delete(ctx, ref) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// forks measures so many forks of an instance, until their programs run, beside as many
// starts from a template.
func forks(n int) func(context.Context, *world) (*sampler, error) {
	return func(ctx context.Context, w *world) (*sampler, error) {
		s, err := w.serve(ctx)
		if err != nil {
			return nil, err
		}
		return &sampler{
			figure: func(ctx context.Context) (float64, error) {
				if err := s.own(ctx); err != nil {
					return 0, err
				}
				took, ids, err := s.fork(ctx, n)
				return took, errors.Join(err, s.deleteAll(ctx, ids))
			},
			floor: func(ctx context.Context) (float64, error) {
				took, ids, err := s.starts(ctx, n)
				return took, errors.Join(err, s.deleteAll(ctx, ids))
			},
		}, nil
	}
}

// memPerFork measures the memory of the host that a fork takes, its share of what it shares
// with others, beside an instance that was started from a template.
func memPerFork(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	const together = 4
	each := func(ctx context.Context, ids []string) (float64, error) {
		total := 0.0
		for _, id := range ids {
			info, err := s.client.Info(ctx, id)
			if err != nil {
				return 0, err
			}
			total += float64(info.MemoryUsed) / 1e6
		}
		return total / float64(len(ids)), nil
	}
	return &sampler{
		figure: func(ctx context.Context) (used float64, err error) {
			if err := s.own(ctx); err != nil {
				return 0, err
			}
			_, ids, err := s.fork(ctx, together)
			if err == nil {
				used, err = each(ctx, ids)
			}
			return used, errors.Join(err, s.deleteAll(ctx, ids))
		},
		floor: func(ctx context.Context) (used float64, err error) {
			_, ids, err := s.starts(ctx, together)
			if err == nil {
				used, err = each(ctx, ids)
			}
			return used, errors.Join(err, s.deleteAll(ctx, ids))
		},
	}, nil
}
