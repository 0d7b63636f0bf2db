package drivers

import (
	"context"
	"log/slog"
	"runtime"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/cloudhypervisor"
)

// preference is a driver in the order in which they are tried.
type preference struct {
	name config.VMM
	// here tells whether it is worth a try, without costing anything. Nil is always.
	here func(*config.Config) bool
}

// preferences are in order for each system: the best first, and last the one whose
// error is told where none works.
var preferences = map[string][]preference{
	"linux":  {{config.VMMCloudHypervisor, hasCloudHypervisor}, {config.VMMQEMU, nil}},
	"darwin": {{config.VMMLibkrun, nil}, {config.VMMQEMU, nil}},
}

// preferred returns the order of the system that this is.
func preferred() []preference {
	if p := preferences[runtime.GOOS]; p != nil {
		return p
	}
	return []preference{{config.VMMQEMU, nil}}
}

// hasCloudHypervisor tells whether it is installed and not ruled out: it emulates nothing.
func hasCloudHypervisor(conf *config.Config) bool {
	_, err := cloudhypervisor.Find(conf.CloudHypervisor, conf.Home.Lib())
	return err == nil && conf.Accel != config.AccelTCG
}

// passed is a driver that would have been preferred, and why it is not used.
type passed struct {
	name config.VMM
	err  error // nil: it is not installed, or ruled out
}

// choose opens the driver that is asked for, or the first of the preferences that works.
func choose(ctx context.Context, conf *config.Config, log *slog.Logger) (vmm.Driver, []passed, error) {
	if conf.VMM != config.VMMAuto {
		d, err := open[conf.VMM](ctx, conf, log)
		return d, nil, err
	}
	return chooseFrom(ctx, preferred(), conf, log)
}

func chooseFrom(ctx context.Context, all []preference, conf *config.Config, log *slog.Logger) (d vmm.Driver, over []passed, err error) {
	for _, p := range all {
		if p.here != nil && !p.here(conf) {
			over = append(over, passed{name: p.name})
			continue
		}
		if d, err = open[p.name](ctx, conf, log); err == nil {
			return d, over, nil
		}
		if ctx.Err() != nil {
			return nil, over, context.Cause(ctx)
		}
		log.InfoContext(ctx, "a driver is passed over", logattr.Driver(string(p.name)), logattr.Err(err))
		over = append(over, passed{name: p.name, err: err})
	}
	return nil, over, err
}
