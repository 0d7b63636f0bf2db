package guestlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// request asks the guest for something, again in the next session if this one ends
// before the answer. The answer's body goes into out, unless that is nil.
func (l *Link) request(ctx context.Context, doing string, t guestproto.Type, body, out any) error {
	m, err := guestproto.NewMessage(l.ids.Add(1), t, body)
	if err != nil {
		return err
	}
	if len(m.Body) > guestproto.MaxMessage-1024 {
		return fault.Wrap(fault.Invalid, guestproto.ErrTooLarge, "%s", doing).WithHint("pass large data through stdin or a file")
	}
	for {
		sess, err := l.live(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		answer, err := sess.call(ctx, m)
		switch {
		case errors.Is(err, errSessionEnded):
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", doing, err)
		case answer.Error != nil:
			return guestFault(doing, answer.Error)
		case out == nil:
			return nil
		}
		if err := answer.Decode(out); err != nil {
			return broken("%s: %v", doing, err)
		}
		return nil
	}
}

// Spawn implements instance.Guest. When ctx ends before the guest has answered, the
// process is killed should it have been started.
func (l *Link) Spawn(ctx context.Context, req guestproto.Spawn) error {
	l.mu.Lock()
	if _, known := l.owned[req.ID]; known {
		l.mu.Unlock()
		return fault.New(fault.Conflict, "process %s was started before", req.ID)
	}
	l.owned[req.ID] = 0 // from now on: a handshake in between must not kill it
	l.mu.Unlock()
	name := ""
	if len(req.Command) > 0 {
		name = req.Command[0]
	}
	var spawned guestproto.Spawned
	err := l.request(ctx, "exec "+strconv.Quote(name), guestproto.TypeSpawn, req, &spawned)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owned, req.ID)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Exit == noCommandExit && strings.Contains(name, "/") {
		f.Hint = pathHint
	}
	if ctx.Err() != nil && l.err == nil { // run is still counted, so Close waits for this too
		l.wg.Go(func() { l.killUnowned(req.ID) })
	}
	return err
}

// killUnowned kills what may have been started for nobody. A later handshake would
// do it too; until then it would run unseen.
func (l *Link) killUnowned(id guestproto.ExecID) {
	_ = l.Kill(l.ctx, id, int(syscall.SIGKILL)) // not found, mostly
}

// disown gives up a process: the next handshake does not name it.
func (l *Link) disown(id guestproto.ExecID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.owned, id)
}

// Kill implements instance.Guest.
func (l *Link) Kill(ctx context.Context, exec guestproto.ExecID, signal int) error {
	return l.request(ctx, "kill "+string(exec), guestproto.TypeKill, guestproto.Kill{ID: exec, Signal: signal}, nil)
}

// PowerOff implements instance.Guest.
func (l *Link) PowerOff(ctx context.Context, grace time.Duration) error {
	return l.request(ctx, "power off", guestproto.TypePowerOff, guestproto.PowerOff{GraceMS: int(grace.Milliseconds())}, nil)
}

// Freeze writes the guest's dirty data back and stops all its user processes. It
// returns those that did not stop within the deadline.
func (l *Link) Freeze(ctx context.Context, deadline time.Duration) ([]string, error) {
	var frozen guestproto.Frozen
	err := l.request(ctx, "freeze", guestproto.TypeFreeze, guestproto.Freeze{DeadlineMS: int(deadline.Milliseconds())}, &frozen)
	for i := range frozen.Stuck {
		frozen.Stuck[i] = clean(frozen.Stuck[i])
	}
	return frozen.Stuck, err
}

// Mount has the guest mount folders of the host, but for those that it has mounted
// already. Their server must be answering when it is asked for.
func (l *Link) Mount(ctx context.Context, req guestproto.Mount) error {
	return l.request(ctx, "mount the workspace in the VM", guestproto.TypeMount, req, nil)
}

// Stats returns what the guest says of its own use. Display only.
func (l *Link) Stats(ctx context.Context) (guestproto.Stats, error) {
	var stats guestproto.Stats
	err := l.request(ctx, "ask for statistics", guestproto.TypeStats, nil, &stats)
	return stats, err
}

// Dial connects to host:port inside the guest: what listens on loopback there is
// reached this way. The connection ends with the session. It has CloseWrite.
func (l *Link) Dial(ctx context.Context, addr string) (net.Conn, error) {
	sess, stream, err := l.open(ctx, "dial "+addr+" in the VM", guestproto.StreamHeader{Kind: guestproto.StreamDial, Addr: addr})
	if err != nil {
		return nil, err
	}
	return &conn{Stream: stream, sess: sess}, nil
}

// open opens a stream in the session there is, or in the next one if that ends in the
// middle: nothing has been said on it yet.
func (l *Link) open(ctx context.Context, doing string, header guestproto.StreamHeader) (*session, *yamux.Stream, error) {
	for {
		sess, err := l.live(ctx)
		if err != nil {
			return nil, nil, err
		}
		stream, _, err := sess.open(ctx, header)
		if errors.Is(err, errSessionEnded) {
			continue
		}
		if said, ok := errors.AsType[*guestproto.Error](err); ok {
			return nil, nil, guestFault(doing, said)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", doing, err)
		}
		return sess, stream, nil
	}
}

// conn is a connection into the guest.
type conn struct {
	*yamux.Stream

	sess *session
}

// CloseWrite ends this direction; reading goes on.
func (c *conn) CloseWrite() error { return c.Stream.Close() }

// Close ends both. It does not wait for a guest that is paused.
func (c *conn) Close() error {
	err := c.SetDeadline(past)
	c.sess.spawn(func() { _ = c.Stream.Close() }) // it ends with the session at the latest
	return err
}
