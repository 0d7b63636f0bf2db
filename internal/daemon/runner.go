package daemon

import (
	"context"

	"github.com/xfeldman/aegisvm/internal/httpapi"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// runner is the core as the API sees it for runs.
type runner struct{ set *instance.Set }

// Run implements httpapi.Runner.
func (r runner) Run(ctx context.Context, spec instance.Spec) (httpapi.Running, error) {
	run, err := r.set.Run(ctx, spec)
	if err != nil {
		return nil, err // not a nil *Run in a non-nil interface
	}
	return run, nil
}
