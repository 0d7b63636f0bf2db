package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/setup"
	"github.com/xfeldman/aegisvm/internal/vmm/qemu"
)

// ninep is a machine without a daemon whose VMM shares a folder of the host by 9p, as QEMU
// alone does it. The product knows nothing of that: its driver is given a program that
// starts QEMU with two more arguments, and a kernel with 9p, which kernels for VMs lack.
type ninep struct {
	*node
}

const (
	ninepDevice = "virtio-9p-device"
	ninepTag    = "share"        // names the folder to the guest
	ninepFolder = "/mnt/bench"   // what is measured, within
	ninepShare  = "share"        // the host's folder, and
	ninepQEMU   = "qemu-with-9p" // the program, in the machine's home
)

// ninepModules is what a guest needs to mount the folder.
var ninepModules = []string{"9p", "9pnet_virtio"}

// ninepMount mounts the folder. It is cached as little as QEMU's own share is anywhere, and
// the size of messages is the largest that virtio takes.
const ninepMount = "mkdir -p /mnt && mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 " + ninepTag + " /mnt"

// sharing returns the machine that floors share. Where there can be none, that is a
// lackError, also for all who ask later.
func (w *world) sharing(ctx context.Context) (*ninep, error) {
	if w.ninep == nil && w.noNinep == nil {
		w.ninep, w.noNinep = w.newNinep(ctx)
	}
	return w.ninep, w.noNinep
}

func (w *world) newNinep(ctx context.Context) (*ninep, error) {
	program, err := w.ninepProgram(ctx)
	if err != nil {
		return nil, &lackError{err}
	}
	if err := os.MkdirAll(w.conf.Home.NinePKernel(), 0o700); err != nil {
		return nil, err
	}
	home, err := w.makeHome(ninepHome, w.conf.Home.NinePKernel())
	if err != nil {
		return nil, err
	}
	k, err := w.ninepKernel(ctx, home)
	if err != nil {
		return nil, err
	}
	w.tell(fmt.Sprintf("9p is measured with kernel %s, from %s", k.Version, k.Source))
	b, err := w.ninepGround(ctx, home, program)
	if err != nil {
		return nil, err
	}
	prepared, err := b.prepare(ctx, true)
	if err != nil {
		return nil, err
	}
	n, err := prepared.start(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := n.output(ctx, "sh", "-c", ninepMount); err != nil {
		return nil, errors.Join(err, n.close(ctx))
	}
	return &ninep{n}, nil
}

// ninepProgram returns the path of a QEMU that has 9p.
func (w *world) ninepProgram(ctx context.Context) (string, error) {
	if _, ok := w.driver.(*qemu.Driver); !ok {
		return "", fmt.Errorf("machines run on %s, and 9p is QEMU's", w.driver.Info().Name)
	}
	path, err := exec.LookPath(cmp.Or(w.conf.QEMU, qemu.Program()))
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", err
	}
	if err := exec.CommandContext(ctx, path, "-device", ninepDevice+",help").Run(); err != nil {
		return "", fmt.Errorf("%s has no 9p: %w", path, err)
	}
	return path, nil
}

// ninepKernel returns the kernel of the machine's home. It is the host's own if that has
// 9p; else it is fetched, once: what is fetched stays in the user's home.
func (w *world) ninepKernel(ctx context.Context, home paths.Home) (kernel.Kernel, error) {
	host := setup.Options{}.Host()
	o := kernel.Options{Home: home, Distro: host.Distro, Sources: host.Sources, Progress: w.tell, Extra: ninepModules}
	if host.Cache != "" {
		o.Cache = filepath.Join(host.Cache, filepath.Base(w.conf.Home.NinePKernel()))
	}
	k, err := kernel.Ensure(ctx, o)
	if err != nil && ctx.Err() == nil {
		err = &lackError{fmt.Errorf("no kernel with 9p: %w", err)}
	}
	return k, err
}

// ninepGround is a home in which machines boot with the share.
func (w *world) ninepGround(ctx context.Context, home paths.Home, program string) (*bare, error) {
	share := filepath.Join(string(home), ninepShare)
	if err := os.MkdirAll(share, 0o700); err != nil {
		return nil, err
	}
	wrapper := filepath.Join(string(home), ninepQEMU)
	if err := os.WriteFile(wrapper, []byte(ninepScript(program, share)), 0o700); err != nil { //nolint:gosec // it is run
		return nil, err
	}
	// Who serves the workspace is this user, be it root; so is who serves this folder.
	d, err := qemu.Open(ctx, qemu.Options{
		Binary: wrapper, Accel: qemu.Accel(w.driver.Info().Accel), Account: "root", Log: w.log,
	})
	if err != nil {
		return nil, err
	}
	return w.newBare(home, d)
}

// ninepScript is a program that starts QEMU with a share. security_model=none is the one
// that does the least for each file.
func ninepScript(program, share string) string {
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	return "#!/bin/sh\nexec " + quote(program) + ` "$@"` +
		" -fsdev " + quote("local,id=share,security_model=none,path="+strings.ReplaceAll(share, ",", ",,")) +
		" -device " + ninepDevice + ",fsdev=share,mount_tag=" + ninepTag + "\n"
}

// lackError is what a figure needs that this host has not. It is left out.
type lackError struct{ err error }

func (e *lackError) Error() string { return e.err.Error() }

func (e *lackError) Unwrap() error { return e.err }

// leftOut tells why a figure is left out after an error of it; "" is that it is not.
func leftOut(err error) string {
	if _, lacks := errors.AsType[*lackError](err); lacks {
		return fmt.Sprintf("this host has not what it takes, the figure is left out: %v", err)
	}
	if fault.KindOf(err) == fault.Exhausted {
		return fmt.Sprintf("this host is too small, the figure is left out: %v", err)
	}
	return ""
}
