package bench

import (
	"context"
	"net"
)

// portLatency measures one byte over a new connection to a public port, beside the same
// over the guest's network alone.
func portLatency(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	return &sampler{
		figure: s.firstByte,
		floor: func(ctx context.Context) (float64, error) {
			return timed(func() error { return fetch(ctx, peer.dial, 1) })
		},
	}, nil
}

// volume is how much a sample of throughput transfers, in MB.
const volume = 64

// portThroughput measures how fast a guest sends over a public port, beside the same over
// the guest's network alone.
func portThroughput(ctx context.Context, w *world) (*sampler, error) {
	s, peer, err := w.servers(ctx)
	if err != nil {
		return nil, err
	}
	throughput := func(dial func(context.Context) (net.Conn, error)) func(context.Context) (float64, error) {
		return func(ctx context.Context) (float64, error) {
			took, err := timed(func() error { return fetch(ctx, dial, volume*1e6) })
			return volume / took * 1000, err
		}
	}
	return &sampler{figure: throughput(s.dial), floor: throughput(peer.dial)}, nil
}

// servers returns the two that serve, both awake.
func (w *world) servers(ctx context.Context) (*server, *peer, error) {
	s, err := w.serve(ctx)
	if err != nil {
		return nil, nil, err
	}
	peer, err := w.partner(ctx)
	return s, peer, err
}

// fetch connects and asks for n bytes.
func fetch(ctx context.Context, dial func(context.Context) (net.Conn, error), n int64) error {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	return ask(ctx, conn, n)
}
