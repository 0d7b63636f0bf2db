//go:build !linux

package qemu

import (
	"context"
	"errors"
	"runtime"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Driver runs machines with QEMU. It implements vmm.Driver.
type Driver struct{ vmm.Driver }

// Open fails: the driver stands on Linux' pidfds and memfds.
func Open(context.Context, Options) (*Driver, error) {
	return nil, fault.Wrap(fault.Unavailable, errors.ErrUnsupported, "the QEMU driver on %s", runtime.GOOS).By(fault.Host).
		WithHint("AegisVM needs Linux to run VMs in this version")
}
