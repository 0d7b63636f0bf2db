package cloudhypervisor

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
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/probe"
)

const (
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

// tryKVM finds out, at most once for each boot of the host, kernel and VMM, whether KVM
// runs guests here, and returns the words that say so.
func (d *Driver) tryKVM(ctx context.Context, o Options) (string, error) {
	kvm, err := os.OpenFile(host.KVMDevice, os.O_RDWR, 0)
	host.CloseAll(kvm)
	switch {
	case err != nil:
		return "", errNoKVM(err.Error())
	case o.Trust:
		return "KVM was asked for (AEGIS_ACCEL=kvm)", nil
	case o.Kernel == "":
		return "", errNoKVM("there is no kernel yet to try it with")
	}
	boot, err := host.BootID()
	if err != nil {
		return "", err
	}
	digest, err := digestFile(o.Kernel)
	if err != nil {
		return "", err
	}
	s := &probe.Store{Dir: o.Verdicts, Boot: boot}
	if s.Dir == "" {
		s.Dir = probe.DefaultDir()
	}
	key := fmt.Sprintf("kvm; kernel %x; cloud-hypervisor %v at %s; account %+v", digest, d.version, d.binary, d.account)
	v, err := s.Once(ctx, key, func(ctx context.Context) (probe.Verdict, error) { return d.trial(ctx, o.Kernel) })
	if err != nil {
		return "", err
	}
	if !v.Works {
		return "", errNoKVM(v.Why)
	}
	return v.Why, nil
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

// trial boots the kernel with nothing to run: KVM works if the kernel comes as far
// as to miss its root.
func (d *Driver) trial(ctx context.Context, kernel string) (v probe.Verdict, err error) {
	dir, err := os.MkdirTemp("", "aegis-kvm-trial-")
	if err != nil {
		return v, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in a folder that the host empties
	silent, cancel := context.WithTimeout(ctx, firstWord)
	defer cancel()
	started, err := d.Start(silent, vmm.Spec{
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
	v, err = m.judge(ctx)
	// Not the caller's context: the trial's VMM must go in any case.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		err = errors.Join(err, fmt.Errorf("end the trial's VMM (process %d): %w", m.proc.PID, killed))
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
