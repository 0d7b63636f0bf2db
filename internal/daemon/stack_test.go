package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// TestPartsStopInReverse stops all parts, whatever the others say.
func TestPartsStopInReverse(t *testing.T) {
	s := &stack{log: slog.New(slog.DiscardHandler)}
	var order []string
	broken := errors.New("broken")
	for _, name := range []string{"first", "second", "third"} {
		s.push(name, func(context.Context) error {
			order = append(order, name)
			if name == "second" {
				return broken
			}
			return nil
		})
	}
	err := errors.Join(s.stop(t.Context()), s.stop(t.Context()))
	if want := []string{"third", "second", "first"}; !slices.Equal(order, want) {
		t.Errorf("stopped %v, want %v, each once", order, want)
	}
	if !errors.Is(err, broken) || err.Error() != "stop second: broken" {
		t.Errorf("err = %v", err)
	}
}

// TestDefaultsAreTheCores holds the settings' defaults, which a person reads in
// `aegis config show`, against those of the core.
func TestDefaultsAreTheCores(t *testing.T) {
	c, err := config.Load(paths.Home(t.TempDir()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := limits(c), instance.DefaultLimits(); got != want {
		t.Errorf("limits = %+v, the core's are %+v", got, want)
	}
	if c.Memory != instance.DefaultMemory || c.Disk != instance.DefaultDisk || c.CPUs != 1 {
		t.Errorf("memory %v, disk %v, %d CPUs differ from the core's", c.Memory, c.Disk, c.CPUs)
	}
}
