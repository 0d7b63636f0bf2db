package tether

import (
	"context"
	"net"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

// Rows keeps frames. Package store implements it. What it has answered survives a crash of
// the host. Its methods may be called together. All that it keeps of an instance goes when
// the instance is deleted.
type Rows interface {
	// LoadTethers returns the tethers of all instances that have one.
	LoadTethers(ctx context.Context) ([]message.Tether, error)

	// AppendFrames stores entries in their order, all or, after an error, none. A frame's
	// Seq is one more than the highest that its instance ever had.
	AppendFrames(ctx context.Context, entries []message.Entry, keep message.Keep) ([]message.Stored, error)

	// Frames returns what q selects, or the first of it: see message.Page.
	Frames(ctx context.Context, instance string, q message.Query) (message.Page, error)

	// Untaken returns the first ingress frames that the agent has not taken, at most limit.
	Untaken(ctx context.Context, instance string, limit int) ([]api.Frame, error)

	// Watermark returns how far a channel's reader has read: 0 if nobody has said.
	Watermark(ctx context.Context, instance, channel string) (int64, error)

	// RaiseWatermark raises it, to the newest frame's Seq at most, and returns what it is
	// now. It is never lowered.
	RaiseWatermark(ctx context.Context, instance, channel string, seq int64) (int64, error)
}

// Instances is what the tether needs of the core. A ref is an id or a handle.
type Instances interface {
	Get(ref string) (instance.View, error)
	Watch() (<-chan instance.Change, func())

	// Visit wakes an instance and holds it awake until Release. owner says for what.
	Visit(ctx context.Context, ref, owner string) (Visit, error)
}

// Visit is a hold on an instance, and a way to programs in it.
type Visit interface {
	// DialLocal connects to a port of the guest's 127.0.0.1. It makes one attempt.
	DialLocal(ctx context.Context, port uint16) (net.Conn, error)
	Release()
}
