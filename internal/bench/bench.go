package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// Run measures. conf is the user's: it has the home in which set-up has been. only names
// figures; none is all. tell is told how it goes, in words for people. Run takes some
// minutes, uses the whole host, and leaves nothing behind. What needs more memory or disk
// than the host has is left out, and so is what needs 9p where that cannot be had.
func Run(ctx context.Context, conf *config.Config, only []string, tell func(string)) (report api.Bench, err error) {
	chosen, err := choose(only)
	if err != nil {
		return report, err
	}
	k, err := kernel.Installed(conf.Home)
	if err != nil {
		return report, err
	}
	lock, err := acquire(conf.Home)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	w, err := newWorld(ctx, conf, tell)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, w.close(context.WithoutCancel(ctx))) }()
	info := w.driver.Info()
	report = api.Bench{
		Host: hostName(), Kernel: k.Version, Driver: info.Name + " " + info.Version, Accel: info.Accel,
		Version: buildinfo.Version(), Results: []api.BenchResult{},
	}
	for _, m := range chosen {
		tell("measuring " + m.name)
		r, err := m.take(ctx, w)
		if why := leftOut(err); why != "" && ctx.Err() == nil {
			tell(why)
			continue
		}
		if err != nil {
			return report, err
		}
		report.Results = append(report.Results, r)
	}
	return report, nil
}

// choose returns the measurements of those names, in their own order.
func choose(names []string) ([]measurement, error) {
	all := measurements()
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		if !slices.Contains(Names(), n) {
			return nil, fault.New(fault.Invalid, "there is no figure %q", n).WithHint("figures are: %s", strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(all, func(m measurement) bool { return !slices.Contains(names, m.name) }), nil
}

// acquire makes this process the only one that measures in a home.
func acquire(home paths.Home) (*presence.Lock, error) {
	if err := home.Create(); err != nil {
		return nil, err
	}
	lock, err := presence.Acquire(home.BenchLock())
	if held, ok := errors.AsType[*presence.HeldError](err); ok {
		return nil, fault.New(fault.Conflict, "process %d is measuring already", held.PID).
			WithHint("wait for it: two at a time would measure each other")
	}
	return lock, err
}

// hostName tells what is measured on.
func hostName() string {
	text := fmt.Sprintf("%s/%s, %d CPUs", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if model := field(string(b), "model name"); model != "" {
			text += " " + model
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		text += ", Linux " + strings.TrimSpace(string(b))
	}
	return text
}

// field returns the value of the first line "name : value".
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
