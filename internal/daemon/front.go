package daemon

import (
	"context"
	"net"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/router"
)

// openFront starts the HTTP router. A daemon does without one whose address is taken:
// another home's daemon has it.
func (d *daemon) openFront(ctx context.Context) {
	if d.Config.Router == config.RouterOff {
		return
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", d.Config.Router)
	if err != nil {
		err = fault.Wrap(fault.Conflict, err, "there is no HTTP router").By(fault.Host).
			WithHint("give it another address in config.toml: router = \"127.0.0.1:PORT\"")
		d.Log.WarnContext(ctx, "router", logattr.Err(err))
		return
	}
	front := router.NewFront(fronted{d.set}, d.Log) //nolint:contextcheck // each request has its own
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := front.Serve(ln); err != nil {
			d.Log.ErrorContext(ctx, "router", logattr.Err(err))
		}
	}()
	d.parts.push("router", func(context.Context) error {
		err := front.Close()
		<-served
		return err
	})
	d.router = ln.Addr().String()
}

// fronted is the core as the HTTP router sees it.
type fronted struct{ *instance.Set }

// Awake implements router.Instances.
func (f fronted) Awake(ctx context.Context, ref, owner string) (router.Awake, error) {
	a, err := f.Set.Awake(ctx, ref, owner)
	if err != nil {
		return nil, err // not a nil *Awake in a non-nil interface
	}
	return a, nil
}
