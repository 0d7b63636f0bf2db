package doctor

import (
	"context"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/paths"
)

// Status is the result of a check.
type Status string

// The results.
const (
	OK   Status = "ok"
	Warn Status = "warn" // machines run, but not as well as they could
	Fail Status = "fail" // machines do not run
)

// Check is one requirement and how the host meets it.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`         // what was found, or what is wrong
	Mend   string `json:"mend,omitempty"` // the command that mends it; "" with OK
}

// Accelerator is what a driver says about running machines on this host.
type Accelerator struct {
	VMM       string // and its version: "qemu 7.2.22"
	Name      string // "kvm", "tcg", "hvf"
	Isolation string // the grade, as users are told
	Why       string // one line: why this one
	Better    []Advice
}

// Advice is something that would serve better than what there is, and how to get it.
type Advice struct{ What, How string }

// Options says what to examine. The zero value of a field is the real thing.
type Options struct {
	Home paths.Home
	QEMU string // the program, a name or a path; "" is the one for the host's architecture

	// Accel gives the verdict of the driver that would run machines. It may boot a
	// kernel and is bounded by AccelTimeout. Nil leaves the check out.
	Accel func(ctx context.Context) (Accelerator, error)

	UID     int                               // who machines would run as
	Look    func(name string) (string, error) // finds a program of the host
	Program func(name string) (string, error) // finds one of AegisVM's own
	Root    string                            // where /proc, /etc and /dev/shm are, "/" by default
}

const (
	// programTimeout protects from a program of the host that hangs.
	programTimeout = 10 * time.Second
	// AccelTimeout protects from a verdict that never comes: the slowest, a boot
	// under emulation, takes a few seconds.
	AccelTimeout = 30 * time.Second
)

// Run makes all checks, in the order in which one would mend them.
func Run(ctx context.Context, o Options) []Check {
	o = o.complete()
	checks := []Check{o.ownPrograms(), o.qemu(ctx), o.formatter(), o.builder()}
	checks = append(checks, o.namespaces()...)
	checks = append(checks, o.kernel(), o.baseImage(), o.disk())
	checks = append(checks, o.memory()...)
	if o.Accel != nil {
		checks = append(checks, o.accelerator(ctx)...)
	}
	return checks
}

// Healthy tells whether machines can run.
func Healthy(checks []Check) bool {
	return !slices.ContainsFunc(checks, func(c Check) bool { return c.Status == Fail })
}

// accelerator checks how machines would run, and what would be better.
func (o *Options) accelerator(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, AccelTimeout)
	defer cancel()
	c := Check{Name: "accelerator", Status: OK}
	a, err := o.Accel(ctx)
	if err != nil {
		c.Status, c.Detail = Fail, err.Error()
		c.Mend = mendOf(err, "aegis setup")
		return []Check{c}
	}
	c.Detail = a.Name + ", " + a.Isolation + ": " + a.Why
	if a.VMM != "" {
		c.Detail = a.VMM + " on " + c.Detail
	}
	if a.Name == "tcg" && len(a.Better) == 0 {
		c.Status, c.Mend = Warn, "use a host with working hardware virtualization for speed and for hardware isolation"
	}
	checks := []Check{c}
	for _, b := range a.Better {
		checks = append(checks, Check{Name: "faster", Status: Warn, Detail: b.What, Mend: b.How})
	}
	return checks
}
