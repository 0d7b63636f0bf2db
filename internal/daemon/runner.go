package daemon

import (
	"context"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/httpapi"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// runner is the core as the API sees it, with the user's defaults.
type runner struct {
	set  *instance.Set
	conf *config.Config
}

// Run implements httpapi.Runner.
func (r runner) Run(ctx context.Context, spec instance.Spec) (httpapi.Running, error) {
	if spec.Memory == 0 {
		spec.Memory = r.conf.Memory
	}
	if spec.VCPUs == 0 {
		spec.VCPUs = r.conf.CPUs
	}
	if spec.Disk == 0 {
		spec.Disk = r.conf.Disk
	}
	run, err := r.set.Run(ctx, spec)
	if err != nil {
		return nil, err // not a nil *Run in a non-nil interface
	}
	return run, nil
}
