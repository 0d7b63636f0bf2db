package bench

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/netstack"
)

// peer is a machine without a daemon that serves.
type peer struct {
	*node

	network *netstack.Network
	program instance.Attachment
}

// partner returns the peer that floors share. It runs, and owns its memory.
func (w *world) partner(ctx context.Context) (*peer, error) {
	if w.peer == nil {
		p, err := w.newPeer(ctx, true)
		if err != nil {
			return nil, err
		}
		w.peer = p
	}
	return w.peer, nil
}

// newPeer starts a peer: a clone of the template or, if cold is set, by a boot.
func (w *world) newPeer(ctx context.Context, cold bool) (*peer, error) {
	b, err := w.barely()
	if err != nil {
		return nil, err
	}
	prepared, err := b.prepare(ctx, cold)
	if err != nil {
		return nil, err
	}
	p := &peer{}
	if p.node, err = prepared.start(ctx); err != nil {
		return nil, err
	}
	if err := p.serve(ctx, w); err != nil {
		return nil, errors.Join(err, p.close(ctx))
	}
	return p, nil
}

// serve gives the machine a network and starts its program.
func (p *peer) serve(ctx context.Context, w *world) error {
	var err error
	if p.network, err = netstack.New(netstack.Config{Policy: netstack.Policy{Mode: netstack.None}, Log: w.log}); err != nil {
		return err
	}
	conn, err := p.vm.AttachNetwork(ctx)
	if err != nil {
		return err
	}
	_ = p.network.Attach(conn) // whether the connection lives shows when it is used
	if p.program, err = p.spawn(ctx, "python3", "-c", serving); err != nil {
		return err
	}
	f, err := p.program.Recv()
	if err == nil && f.Type != frame.Stdout {
		err = fmt.Errorf("the server did not start: %q", f.Payload)
	}
	return err
}

// dial connects to the program through the guest's network.
func (p *peer) dial(ctx context.Context) (net.Conn, error) { return p.network.Dial(ctx, servingPort) }

// close ends the machine and its network.
func (p *peer) close(ctx context.Context) error {
	var errs []error
	if p.program != nil {
		errs = append(errs, p.program.Close())
	}
	if p.network != nil {
		errs = append(errs, p.network.Close())
	}
	return errors.Join(append(errs, p.node.close(ctx))...)
}
