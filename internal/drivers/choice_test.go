package drivers

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// named is a driver that only has a name.
type named struct {
	vmm.Driver
	info vmm.Info
}

func (n named) Info() vmm.Info { return n.info }

// with makes the drivers be those of a test.
func with(t *testing.T, drivers map[config.VMM]opener) {
	t.Helper()
	before := open
	t.Cleanup(func() { open = before })
	open = drivers
}

func works(name string) opener {
	return func(context.Context, *config.Config, *slog.Logger) (vmm.Driver, error) {
		return named{info: vmm.Info{Name: name}}, nil
	}
}

func fails(err error) opener {
	return func(context.Context, *config.Config, *slog.Logger) (vmm.Driver, error) { return nil, err }
}

var errNo = fault.New(fault.Unavailable, "it hangs").WithHint("mend it")

func TestChoice(t *testing.T) {
	installed := func(is bool) func(*config.Config) bool { return func(*config.Config) bool { return is } }
	order := []preference{{"first", installed(true)}, {"second", installed(false)}, {"third", nil}}
	for name, c := range map[string]struct {
		open  map[config.VMM]opener
		want  string
		over  string // the names that were passed over
		fails bool
	}{
		"the best":      {open: map[config.VMM]opener{"first": works("first")}, want: "first"},
		"the next":      {open: map[config.VMM]opener{"first": fails(errNo), "third": works("third")}, want: "third", over: "first second"},
		"none, and why": {open: map[config.VMM]opener{"first": fails(errors.New("other")), "third": fails(errNo)}, fails: true, over: "first second third"},
		"not installed": {open: map[config.VMM]opener{"first": fails(errNo), "second": works("second"), "third": works("third")}, want: "third", over: "first second"},
	} {
		t.Run(name, func(t *testing.T) {
			with(t, c.open)
			var log bytes.Buffer
			d, over, err := chooseFrom(t.Context(), order, &config.Config{}, slog.New(slog.NewTextHandler(&log, nil)))
			if c.fails != (err != nil) || err != nil && !errors.Is(err, errNo) || err == nil && d.Info().Name != c.want {
				t.Errorf("%+v, %v", d, err)
			}
			var names []string
			for _, p := range over {
				names = append(names, string(p.name))
				if p.err != nil && !strings.Contains(log.String(), p.err.Error()) {
					t.Errorf("the log does not say why %s is not used: %s", p.name, log.String())
				}
			}
			if strings.Join(names, " ") != c.over {
				t.Errorf("passed over: %q, not %q", names, c.over)
			}
		})
	}
}

// TestAskedFor checks that a driver that is asked for by name is not replaced by another.
func TestAskedFor(t *testing.T) {
	with(t, map[config.VMM]opener{config.VMMQEMU: works("qemu"), config.VMMCloudHypervisor: fails(errNo)})
	log := slog.New(slog.DiscardHandler)
	if d, err := Open(t.Context(), &config.Config{VMM: config.VMMCloudHypervisor}, log); !errors.Is(err, errNo) {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := Open(t.Context(), &config.Config{VMM: config.VMMQEMU}, log); err != nil || d.Info().Name != "qemu" {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestGivenUp checks that whoever gives up is told so, and gets no second-best driver.
func TestGivenUp(t *testing.T) {
	cause := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	with(t, map[config.VMM]opener{
		"first": func(context.Context, *config.Config, *slog.Logger) (vmm.Driver, error) {
			cancel(cause)
			return nil, errNo
		},
		"third": works("third"),
	})
	if d, _, err := chooseFrom(ctx, []preference{{"first", nil}, {"third", nil}}, &config.Config{}, slog.New(slog.DiscardHandler)); !errors.Is(err, cause) {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestEmulationNeedsQEMU checks that no VMM is tried that cannot do what is asked for.
func TestEmulationNeedsQEMU(t *testing.T) {
	if hasCloudHypervisor(&config.Config{CloudHypervisor: "sh", Accel: config.AccelTCG}) {
		t.Error("Cloud Hypervisor is to emulate")
	}
	if !hasCloudHypervisor(&config.Config{CloudHypervisor: "sh"}) {
		t.Error("a program that is there is not found")
	}
	if hasCloudHypervisor(&config.Config{CloudHypervisor: "/no/such/program"}) {
		t.Error("a program that is not there is found")
	}
}

func TestAdvice(t *testing.T) {
	hw, sw := vmm.Info{Isolation: vmm.Hardware}, vmm.Info{Isolation: vmm.Emulated, Why: "KVM is there but hangs"}
	missing := []passed{{name: config.VMMCloudHypervisor}}
	for name, c := range map[string]struct {
		is       vmm.Info
		over     []passed
		accel    config.Accel
		kvm, use error
		says     []string // what, how, what, how
	}{
		"nothing better":     {is: hw},
		"not installed":      {is: hw, over: missing, says: []string{"cloud-hypervisor, which is preferred", "aegis setup"}},
		"installed, failing": {is: hw, over: []passed{{config.VMMCloudHypervisor, errNo}}, says: []string{"is not used: it hangs", "mend it"}},
		"no KVM":             {is: sw, over: missing, kvm: fs.ErrNotExist, use: fs.ErrNotExist, says: []string{"this host has none", "modprobe"}},
		"no right":           {is: sw, use: fs.ErrPermission, says: []string{"may not use it", "usermod -aG kvm"}},
		"does not work":      {is: sw, says: []string{"does not work: KVM is there but hangs", "stock kernel"}},
		"asked for":          {is: sw, accel: config.AccelTCG, says: []string{"KVM", "unset AEGIS_ACCEL"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := better(&c.is, c.over, &config.Config{Accel: c.accel}, c.kvm, c.use)
			if len(got)*2 != len(c.says) {
				t.Fatalf("%+v", got)
			}
			for i, a := range got {
				if !strings.Contains(a.What, c.says[2*i]) || !strings.Contains(a.How, c.says[2*i+1]) {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}
