package daemon

import (
	"context"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/tether"
)

// visited is the core as the tether sees it.
type visited struct{ *instance.Set }

// Visit implements tether.Instances.
func (v visited) Visit(ctx context.Context, ref, owner string) (tether.Visit, error) {
	a, err := v.Set.Visit(ctx, ref, owner)
	if err != nil {
		return nil, err // not a nil *Awake in a non-nil interface
	}
	return a, nil
}

// spoken takes what agents say over the Guest API.
type spoken struct{ *tether.Tether }

// Emit implements guestapi.Tether.
func (s spoken) Emit(ctx context.Context, id instance.ID, f api.Frame) (api.Emitted, error) {
	kept, err := s.Tether.Emit(ctx, id, f)
	return api.Emitted{MsgID: kept.MsgID, Seq: kept.Seq}, err
}
