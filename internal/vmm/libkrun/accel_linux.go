package libkrun

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/probe"
)

const (
	// firstWord is how long the trial's kernel may take to its first line of output. Where
	// KVM is not what it seems (PVM) the kernel spins and never says one; KVM in an
	// emulated machine needs a second.
	firstWord = 6 * time.Second
	// lastWord is how long it may take until it finds that it has no root. A kernel that speaks
	// is not what hangs where KVM is a sham; in an emulated machine on a busy host it needs
	// more than 20 seconds.
	lastWord = 45 * time.Second
	// trialMemory is what the trial's machine gets.
	trialMemory = 256 * size.MiB
	// noRoot is how a kernel ends that has come up without an initramfs or a disk.
	noRoot = "Unable to mount root fs"
)

// judge finds out whether KVM runs guests: that there is a device proves nothing.
func (d *Driver) judge(ctx context.Context, o *Options) (string, error) {
	kvm, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	closeAll(kvm)
	if err != nil {
		return "", errKVM(err)
	}
	if o.Trust {
		return "KVM was asked for (AEGIS_ACCEL=kvm)", nil
	}
	if o.Kernel == "" {
		return "there is KVM; no kernel was there yet to try it with", nil
	}
	v, err := d.tryOnce(ctx, o)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("try KVM: %w", err)
	case !v.Works:
		return "", errKVM(errors.New(v.Why))
	}
	return v.Why, nil
}

func errKVM(cause error) error {
	hint := "another VMM may emulate instead: AEGIS_VMM=qemu"
	if errors.Is(cause, os.ErrPermission) {
		hint = "for the right to use KVM: sudo usermod -aG kvm $USER; " + hint
	}
	return fault.Wrap(fault.Unavailable, cause, "libkrun needs KVM").By(fault.Host).WithHint("%s", hint)
}

// tryOnce tries KVM, at most once for each boot of the host, kernel and libkrun.
func (d *Driver) tryOnce(ctx context.Context, o *Options) (probe.Verdict, error) {
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
	key := fmt.Sprintf("kvm; kernel %x; libkrun %s at %s; account %+v", digest, d.version, d.path, d.account)
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

// tryKVM boots the kernel with nothing to run: it works if the kernel comes as far as
// to miss its root.
func (d *Driver) tryKVM(ctx context.Context, kernel string) (v probe.Verdict, err error) {
	dir, err := os.MkdirTemp("", "aegis-krun-trial-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in a folder that the host empties
	started, err := d.Start(ctx, vmm.Spec{
		ID: "kvm-trial", Dir: dir, Memory: trialMemory, VCPUs: 1, Kernel: kernel,
		Cmdline: "ignore_loglevel earlycon earlyprintk=ttyS0,115200",
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
	v, err = m.verdict(ctx)
	// Not the caller's context: the trial's worker must go in any case.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		err = errors.Join(err, fmt.Errorf("end the trial's worker (process %d): %w", m.proc.id, killed))
	}
	return v, err
}

// verdict watches the trial's kernel.
func (m *Machine) verdict(ctx context.Context) (probe.Verdict, error) {
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
		why := fmt.Sprintf("KVM is there but the guest kernel does not come up within %v", lastWord)
		return probe.Verdict{Why: withWords(why, m.console.Tail())}, nil
	case err != nil:
		return probe.Verdict{}, err
	case strings.Contains(exit.Detail, noRoot):
		return probe.Verdict{Works: true, Why: "KVM runs the guest kernel"}, nil
	}
	return probe.Verdict{Why: "KVM does not run the guest kernel: " + exit.String()}, nil
}
