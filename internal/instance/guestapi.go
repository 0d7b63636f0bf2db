package instance

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// apiWaiting is how many streams wait in a guest for connections to the Guest API.
	apiWaiting = 4
	// apiConns bounds the connections of one guest: others wait in the guest.
	apiConns = 32
)

// serveAPI answers a guest's requests for as long as the run has its link. What waits in
// a guest that sleeps costs nothing and keeps nobody awake.
func (a *actor) serveAPI(l *live) {
	api := a.world.GuestAPI
	if api == nil {
		return
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	a.ops.Go(func() {
		<-l.gone
		cancel(l.cause())
	})
	turns := make(chan struct{}, apiConns)
	for range apiWaiting {
		a.ops.Go(func() {
			for {
				select {
				case turns <- struct{}{}:
				case <-ctx.Done():
					return
				}
				conn, err := l.guest.AcceptAPI(ctx)
				if err != nil {
					a.noAPI(ctx, err)
					return
				}
				a.ops.Go(func() {
					defer func() { <-turns }()
					api.Serve(ctx, a.id, conn)
				})
			}
		})
	}
}

// noAPI says why a guest is not answered any more, if it has not ended.
func (a *actor) noAPI(ctx context.Context, err error) {
	if ctx.Err() == nil && !errors.Is(err, errClosing) {
		a.log.DebugContext(ctx, "the guest is not answered", logattr.Err(err))
	}
}

// environ returns the environment of a process in the guest: its image's, where to find
// the Guest API, and over both what was asked for, which is in order.
func (a *actor) environ(asked []string) []string {
	base := a.spec.Base
	if a.world.GuestAPI != nil {
		base.Env = append(slices.Clip(base.Env),
			"AEGIS_INSTANCE_ID="+string(a.id), "AEGIS_GUEST_API=http://"+guestproto.APIAddress)
	}
	return base.over(asked)
}

// Retain wakes an instance and holds it awake until release is called, which may be done
// again. owner says for what, to people.
func (s *Set) Retain(ctx context.Context, ref, owner string) (release func(), err error) {
	a, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	h, _, err := a.hold(ctx, Acquire, owner)
	if err != nil {
		return nil, s.wakeError(a, err)
	}
	return sync.OnceFunc(func() { a.release(h) }), nil
}
