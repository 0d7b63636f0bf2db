package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// stack is what has been started, to be stopped in the reverse order.
type stack struct {
	log   *slog.Logger
	parts []part
}

type part struct {
	name string
	stop func(context.Context) error
}

func (s *stack) push(name string, stop func(context.Context) error) {
	s.parts = append(s.parts, part{name, stop})
}

// stop stops all parts, whether or not others could be.
func (s *stack) stop(ctx context.Context) error {
	var errs []error
	for _, p := range slices.Backward(s.parts) {
		begin := time.Now()
		err := p.stop(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
		}
		s.log.DebugContext(ctx, "stopped", logattr.Part(p.name), logattr.Took(time.Since(begin)))
	}
	s.parts = nil
	return errors.Join(errs...)
}
