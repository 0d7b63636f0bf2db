//go:build !linux

package cloudhypervisor

import (
	"context"
	"errors"
	"runtime"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Driver runs machines with Cloud Hypervisor. It implements vmm.Driver.
type Driver struct{ vmm.Driver }

// Open fails: Cloud Hypervisor stands on KVM.
func Open(context.Context, Options) (*Driver, error) {
	return nil, fault.Wrap(fault.Unavailable, errors.ErrUnsupported, "Cloud Hypervisor on %s", runtime.GOOS).By(fault.Host).
		WithHint("it runs on Linux; leave the setting vmm at auto")
}
