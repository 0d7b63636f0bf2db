package script

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/daemon"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guest/port"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/fake"
)

// faultVariable names what goes wrong in a daemon that is started with it.
const faultVariable = "AEGIS_TEST_FAULT"

// faults of machines, by the value of AEGIS_TEST_FAULT.
var faults = map[string]fake.Faults{
	"no memory": {Start: fault.New(fault.Exhausted, "512 MB of memory for the VM are more than the 80 MB this host has free").
		By(fault.Host).WithHint("stop something, or give the VM less: --memory")},
	"no vmm": {Start: fault.Wrap(fault.Unavailable, syscall.ENOENT, "qemu-system-x86_64 cannot be run").
		By(fault.Host).WithHint("aegis setup")},
	"vmm dies at boot":     {BootHang: true, DieAfter: 50 * time.Millisecond},
	"kernel panics early":  {BootHang: true, PanicAfter: 50 * time.Millisecond},
	"kernel does not boot": {BootHang: true},
	"slow boot":            {BootDelay: 2 * time.Second},
}

// fakeWorld puts the daemon on machines that are goroutines.
func fakeWorld(o *daemon.Options) {
	what := os.Getenv(faultVariable)
	var host *fake.Host
	programs := map[string]guesttest.Program{
		"panic-kernel": harm(func() *fake.Host { return host }, func(v *fake.VM) { v.Panic("Kernel panic - not syncing: out of luck") }),
		"kill-vmm":     harm(func() *fake.Host { return host }, func(v *fake.VM) { v.Die("signal: killed") }),
		"poweroff":     harm(func() *fake.Host { return host }, func(v *fake.VM) { v.PowerOff() }),
		"fill-disk":    fillDisk(func() *fake.Host { return host }),
		"whoami":       whoami,
	}
	programs["agent"] = fakeAgent(o)
	host = fake.NewHost(func(ctx context.Context, b fake.Boot) vmm.Exit { return guest(ctx, b, what, programs) })
	host.Inject(faults[what])
	o.Driver = host.Driver()
	if err := installBase(o.Config.Home); err != nil {
		panic(err)
	}
	o.Ground = &ground{home: o.Config.Home, full: what == "disk full"}
	o.Memory = func() (total, available size.Bytes, err error) { return math.MaxInt64 / 100, math.MaxInt64 / 100, nil }
}

// installBase makes an image with nothing in it, as set-up would.
func installBase(home paths.Home) error {
	if _, err := rootfs.LoadImage(home, rootfs.BaseImage); err == nil {
		return nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}), w.Close()); err != nil {
		return err
	}
	_, err := rootfs.BuildImage(context.Background(), home, rootfs.Image{Name: rootfs.BaseImage}, &archive)
	return err
}

// harm is a program that does something to its machine and waits for its end.
func harm(host func() *fake.Host, do func(*fake.VM)) guesttest.Program {
	return func(ctx context.Context, x *guesttest.IO) int {
		_, _ = fmt.Fprintln(x.Stdout, "before") // must arrive, whatever happens then
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return 1
		}
		for _, v := range host().VMs() {
			do(v)
		}
		<-ctx.Done()
		return 1
	}
}

// fillDisk is a program that writes until its host has no room left.
func fillDisk(host func() *fake.Host) guesttest.Program {
	return func(_ context.Context, x *guesttest.IO) int {
		for _, v := range host().VMs() {
			v.Suffer(fault.New(fault.Exhausted, "the host's disk was full when the VM wrote to its own").By(fault.Host).
				WithHint("free some space where AEGIS_HOME is: df -h"))
		}
		_, _ = fmt.Fprintln(x.Stdout, "write failed") // a test's output is looked at
		return 3
	}
}

func whoami(_ context.Context, x *guesttest.IO) int {
	user := x.User
	if user == "" {
		user = "root"
	}
	_, _ = fmt.Fprintln(x.Stdout, user) // a test's output is looked at
	return 0
}

// guestAPIs has the addresses of the Guest API, which in a VM is always the same, by the id
// of the instance.
var guestAPIs sync.Map

// guest is the code inside a machine: the real protocol server.
func guest(ctx context.Context, b fake.Boot, what string, programs map[string]guesttest.Program) vmm.Exit {
	var magic guestproto.Magic
	for arg := range strings.FieldsSeq(b.Spec.Cmdline) {
		if v, ok := strings.CutPrefix(arg, guestproto.MagicArg+"="); ok {
			if err := magic.UnmarshalText([]byte(v)); err != nil {
				return vmm.Exit{Reason: vmm.Panicked, Detail: err.Error()}
			}
		}
	}
	ctx, off := context.WithCancel(ctx)
	defer off()
	opts := guesttest.Options{Magic: magic, Programs: programs, PowerOff: off}
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		opts.API = ln
		guestAPIs.Store(b.Spec.ID, ln.Addr().String())
	}
	if what == "image broken" {
		opts.Rootfs = errors.New("mount /dev/vda: bad superblock")
	}
	if err := guesttest.Serve(ctx, device{b.Port}, opts); err != nil {
		return vmm.Exit{Reason: vmm.Panicked, Detail: err.Error()}
	}
	return vmm.Exit{Reason: vmm.PoweredOff}
}

// device is the fake machine's port as the guest's code wants it.
type device struct{ *fake.Port }

func (d device) Read(b []byte) (int, error) {
	n, err := d.Port.Read(b)
	if errors.Is(err, fake.ErrNoHost) {
		err = port.ErrNoHost
	}
	return n, err
}

// Tidy implements instance.Ground.
func (g *ground) Tidy(context.Context, instance.ID) error { return nil }

// ground prepares nothing but folders.
type ground struct {
	home paths.Home
	full bool
}

func (g *ground) Prepare(_ context.Context, id instance.ID, spec instance.Spec, magic guestproto.Magic, _ bool) (instance.Plan, error) {
	if g.full {
		return instance.Plan{}, fault.Wrap(fault.Exhausted, syscall.ENOSPC, "the disk is full").By(fault.Host).
			WithHint("free some space, or move everything with AEGIS_HOME; see: aegis doctor")
	}
	if err := os.MkdirAll(g.Dir(id), 0o700); err != nil {
		return instance.Plan{}, err
	}
	return instance.Plan{Source: vmm.Boot{}, Recipe: vmm.Spec{
		ID: string(id), Dir: g.Dir(id), Memory: spec.Memory, VCPUs: spec.VCPUs, Network: true,
		Cmdline: guestproto.MagicArg + "=" + magic.String(),
	}}, nil
}

// Machines of the script's world die with their daemon and are not saved.
func (g *ground) Started(instance.ID) error                { return nil }
func (g *ground) CutOff(instance.ID) bool                  { return false }
func (g *ground) Spend(context.Context, instance.ID) error { return nil }
func (g *ground) Saved(instance.ID) bool                   { return false }

func (g *ground) Save(context.Context, instance.ID, vmm.Machine) error {
	return fault.New(fault.Unavailable, "machines of goroutines cannot be saved")
}

func (g *ground) Clear(id instance.ID) error { return os.RemoveAll(g.home.Instance(string(id))) }

func (g *ground) Dir(id instance.ID) string { return filepath.Join(g.home.Instance(string(id)), "vm") }

func (g *ground) DiskUse(instance.ID) (size.Bytes, error) { return 0, nil }

func (g *ground) Leftovers() ([]instance.ID, error) {
	entries, err := os.ReadDir(g.home.Instances())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []instance.ID
	for _, e := range entries {
		ids = append(ids, instance.ID(e.Name()))
	}
	return ids, err
}
