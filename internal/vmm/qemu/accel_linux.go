package qemu

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/probe"
)

const (
	kvmDevice = "/dev/kvm"

	// firstWord is how long the kernel may take to its first line of output. Where
	// KVM is not what it seems (PVM) the kernel spins and never says one; KVM in an
	// emulated machine needs a second.
	firstWord = 4 * time.Second
	// lastWord is how long it may take until it finds that it has no root.
	lastWord = 20 * time.Second
	// trialMemory is what the trial's machine gets.
	trialMemory = 256 * size.MiB
	// noRoot is how a kernel ends that has come up without an initramfs or a disk.
	noRoot = "Unable to mount root fs"
)

// chooseAccel decides how guests are executed, and says why.
func (d *Driver) chooseAccel(ctx context.Context, o Options) (Accel, string, error) {
	if o.Accel == TCG {
		return TCG, "emulation was asked for (AEGIS_ACCEL=tcg)", nil
	}
	if d.arch != runtime.GOARCH {
		return TCG, "emulation, as guests are of another architecture than this host", nil
	}
	kvm, err := os.OpenFile(cmp.Or(o.kvm, kvmDevice), os.O_RDWR, 0)
	closeAll(kvm)
	switch {
	case o.Accel == KVM && err != nil:
		return "", "", fault.Wrap(fault.Unavailable, err, "KVM was asked for").By(fault.Host).
			WithHint("AEGIS_ACCEL=auto emulates where there is no KVM; for the right to use it: sudo usermod -aG kvm $USER")
	case o.Accel == KVM:
		return KVM, "KVM was asked for (AEGIS_ACCEL=kvm)", nil
	case err != nil:
		return TCG, fmt.Sprintf("emulation, as there is no KVM to use: %v", err), nil
	case o.Kernel == "":
		return TCG, "emulation, as there is no kernel yet to try KVM with", nil
	}
	v, err := d.tryOnce(ctx, o)
	switch {
	case ctx.Err() != nil:
		return "", "", context.Cause(ctx)
	case err != nil:
		return TCG, fmt.Sprintf("emulation, as KVM could not be tried: %v", err), nil
	case !v.Works:
		return TCG, "emulation, as " + v.Why, nil
	}
	return KVM, v.Why, nil
}

// tryOnce tries KVM, at most once for each boot of the host, kernel and QEMU.
func (d *Driver) tryOnce(ctx context.Context, o Options) (probe.Verdict, error) {
	boot, err := bootID()
	if err != nil {
		return probe.Verdict{}, err
	}
	digest, err := digestFile(o.Kernel)
	if err != nil {
		return probe.Verdict{}, err
	}
	s := &probe.Store{Dir: o.Verdicts, Boot: boot}
	if s.Dir == "" {
		s.Dir = probe.DefaultDir()
	}
	key := fmt.Sprintf("kvm; kernel %x; qemu %v at %s; account %+v", digest, d.version, d.binary, d.account)
	return s.Once(ctx, key, func(ctx context.Context) (probe.Verdict, error) { return d.tryKVM(ctx, o.Kernel) })
}

func digestFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, err
	}
	return h.Sum(nil), nil
}

// tryKVM boots the kernel with nothing to run: it works if the kernel comes as far
// as to miss its root.
func (d *Driver) tryKVM(ctx context.Context, kernel string) (v probe.Verdict, err error) {
	dir, err := os.MkdirTemp("", "aegis-kvm-trial-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in a folder that the host empties
	trial := *d
	trial.accel = KVM
	started, err := trial.Start(ctx, vmm.Spec{
		ID: "kvm-trial", Dir: dir, Memory: trialMemory, VCPUs: 1, Kernel: kernel,
		// Its first word is a notice. All that it says would take ten times as long: each byte to
		// the console leaves the guest twice, which in an emulated machine is slow.
		Cmdline: "loglevel=6 earlycon earlyprintk=ttyS0,115200",
	}, vmm.Boot{})
	if err != nil {
		if ctx.Err() != nil || fault.KindOf(err) == fault.Exhausted {
			return v, err
		}
		return probe.Verdict{Why: "KVM does not start a VM: " + err.Error()}, nil
	}
	m, ok := started.(*Machine)
	if !ok {
		return v, fmt.Errorf("machine of type %T", started)
	}
	v, err = m.judge(ctx)
	// Not the caller's context: the trial's VMM must go in any case.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		err = errors.Join(err, fmt.Errorf("end the trial's QEMU (process %d): %w", m.proc.pid, killed))
	}
	return v, err
}

// judge watches the trial's kernel.
func (m *Machine) judge(ctx context.Context) (probe.Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, lastWord)
	defer cancel()
	silent := time.NewTimer(firstWord)
	defer silent.Stop()
	select {
	case <-m.console.Begun():
	case <-m.ended:
	case <-silent.C:
		return probe.Verdict{Why: fmt.Sprintf("KVM is there but hangs: the guest kernel says nothing within %v", firstWord)}, nil
	case <-ctx.Done():
		return probe.Verdict{}, context.Cause(ctx)
	}
	exit, err := m.Wait(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return probe.Verdict{Why: fmt.Sprintf("KVM is there but the guest kernel does not come up within %v", lastWord)}, nil
	case err != nil:
		return probe.Verdict{}, err
	case strings.Contains(exit.Detail, noRoot):
		return probe.Verdict{Works: true, Why: "KVM runs the guest kernel"}, nil
	}
	return probe.Verdict{Why: "KVM does not run the guest kernel: " + exit.String()}, nil
}
