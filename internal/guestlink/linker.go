package guestlink

import (
	"context"
	"log/slog"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Linker makes links. It implements instance.Linker.
type Linker struct{ Log *slog.Logger }

var (
	_ instance.Linker = Linker{}
	_ instance.Guest  = (*Link)(nil)
)

// Link implements instance.Linker; it is Open.
func (l Linker) Link(ctx context.Context, m vmm.Machine, magic guestproto.Magic, hello guestproto.Hello) (instance.Guest, error) {
	link, err := Open(ctx, l.Log, m, magic, hello)
	if err != nil {
		return nil, err // not a nil *Link in a non-nil interface
	}
	return link, nil
}
