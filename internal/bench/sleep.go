package bench

import (
	"context"
	"errors"
	"os"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// pause measures the pause of an instance, with its programs frozen and their writes on the
// disk, beside the stop of a machine's vCPUs.
func pause(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			took, err := timed(func() error { return do(s.client.Pause(ctx, s.name)) })
			return took, errors.Join(err, do(s.client.Resume(ctx, s.name)))
		},
		floor: func(ctx context.Context) (float64, error) {
			took, err := timed(func() error { return peer.vm.Pause(ctx) })
			return took, errors.Join(err, peer.vm.Resume(ctx))
		},
	}, nil
}

// resumeFirstByte measures a request to an instance that is paused, beside the same one
// when it runs.
func resumeFirstByte(ctx context.Context, w *world) (*sampler, error) {
	return firstByteAfter(ctx, w, func(ctx context.Context, s *server) error { return do(s.client.Pause(ctx, s.name)) })
}

// wakeFirstByte measures a request to an instance that sleeps on disk, beside the same one
// when it runs.
func wakeFirstByte(ctx context.Context, w *world) (*sampler, error) {
	return firstByteAfter(ctx, w, func(ctx context.Context, s *server) error { return s.hibernate(ctx) })
}

func firstByteAfter(ctx context.Context, w *world, sleep func(context.Context, *server) error) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			if err := sleep(ctx, s); err != nil {
				return 0, err
			}
			return s.firstByte(ctx)
		},
		floor: s.firstByte,
	}, nil
}

// savePause measures how long an instance that owns its memory stands until that is safe:
// from when its programs are frozen. Beside it stop and save on the driver.
func savePause(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			log, err := openLog(s.home.Log())
			if err != nil {
				return 0, err
			}
			if err := s.hibernate(ctx); err != nil {
				return 0, err
			}
			took, err := log.savePause(s.name)
			return took, errors.Join(err, do(s.client.Resume(ctx, s.name)))
		},
		floor: func(ctx context.Context) (float64, error) { return peer.save(ctx) },
	}, nil
}

// save stops the machine, saves it and lets it go on. It returns how long the first two
// took.
func (p *peer) save(ctx context.Context) (float64, error) {
	dir, err := os.MkdirTemp(p.bare.ground.Dir(p.id), "saved-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // goes with the machine at the latest
	saver, ok := p.vm.(vmm.Saver)
	if !ok {
		return 0, errors.New("the driver saves no machines")
	}
	var memory vmm.Memory
	took, err := timed(func() error {
		if err := p.vm.Pause(ctx); err != nil {
			return err
		}
		var err error
		_, memory, err = saver.Save(ctx, vmm.Dest{Dir: dir, Hasty: true})
		return err
	})
	if memory != nil {
		err = errors.Join(err, memory.Close())
	}
	return took, errors.Join(err, p.vm.Resume(ctx))
}

// wakeDisk measures the wake of an instance that sleeps on disk, from the second time on,
// beside the start of another one from a template; both until the program runs.
func wakeDisk(ctx context.Context, w *world) (*sampler, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: func(ctx context.Context) (float64, error) {
			if err := s.hibernate(ctx); err != nil {
				return 0, err
			}
			return timed(func() error { return do(s.client.Resume(ctx, s.name)) })
		},
		floor: func(ctx context.Context) (float64, error) {
			name := string(instance.NewID())
			took, err := timed(func() error {
				_, err := s.launch(ctx, "start-"+name, nil, "sleep", "1000000")
				return err
			})
			return took, errors.Join(err, s.delete(ctx, "start-"+name))
		},
	}, nil
}
