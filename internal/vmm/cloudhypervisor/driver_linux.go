package cloudhypervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

// versionTimeout bounds "cloud-hypervisor --version".
const versionTimeout = 20 * time.Second

// Driver runs machines with Cloud Hypervisor. It implements vmm.Driver.
type Driver struct {
	binary   string
	version  Version
	why      string
	account  *host.Account
	landlock bool // the kernel has what the VMM asks of it
	room     room
	log      *slog.Logger
	answer   time.Duration // adoptTimeout, or a test's

	platform string // what all its machines' shapes have in common
}

// driverName is vmm.Info's.
const driverName = "cloud-hypervisor"

// Open finds Cloud Hypervisor, and whether KVM works here, which may take some
// seconds the first time after a boot of the host. It fails where one of them is
// missing.
func Open(ctx context.Context, o Options) (*Driver, error) {
	d := &Driver{log: o.Log, answer: adoptTimeout, landlock: landlockVersion() >= landlockNeeded}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if d.binary, err = Find(o.Binary, o.Lib); err != nil {
		return nil, err
	}
	if d.version, err = askVersion(ctx, d.binary); err != nil {
		return nil, err
	}
	if d.version.before(oldest) {
		return nil, errTooOld(d.version)
	}
	if d.account, err = host.FindAccount(o.Account); err != nil {
		return nil, err
	}
	r := d.recipe(&vmm.Spec{})
	d.platform = r.platform()
	if d.why, err = d.tryKVM(ctx, o); err != nil {
		return nil, err
	}
	return d, nil
}

func askVersion(ctx context.Context, binary string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return Version{}, errMissing(binary, err)
	}
	return parseVersion(string(out))
}

// Info implements vmm.Driver.
func (d *Driver) Info() vmm.Info {
	return vmm.Info{
		Name: driverName, Version: d.version.String(), Accel: "kvm", Isolation: vmm.Hardware,
		Abilities: vmm.Abilities{Pause: true, Save: true}, Why: d.why,
		Identity: identity(d.version, d.platform),
	}
}

// Start implements vmm.Driver.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var m *Machine
	var err error
	switch from := src.(type) {
	case vmm.Boot:
		m, err = d.start(ctx, &spec, origin{}, (*Machine).boot)
	case vmm.Restore:
		m, err = d.restore(ctx, &spec, &from)
	default:
		err = fmt.Errorf("start from %T: %w", src, errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// start runs a VMM, which makes begin a machine of it. It closes what from has.
func (d *Driver) start(ctx context.Context, spec *vmm.Spec, from origin, begin func(*Machine, context.Context, *recipe) error) (*Machine, error) {
	f, err := host.MakeFolder(spec.Dir, names...)
	if err != nil {
		host.CloseAll(from.memory)
		return nil, fmt.Errorf("folder of the machine: %w", err)
	}
	m, r, err := d.spawn(f, spec, from)
	if err != nil {
		f.Clear()
		f.Close()
		return nil, err
	}
	err = m.connect(ctx, startTimeout)
	if err == nil {
		err = begin(m, ctx, r)
	}
	if err != nil {
		return nil, d.giveUp(ctx, m, err)
	}
	return m, nil
}

// boot makes the machine, and starts its kernel.
func (m *Machine) boot(ctx context.Context, r *recipe) error {
	if err := m.api.put(ctx, "vm.create", r.config()); err != nil {
		return err
	}
	return m.api.put(ctx, "vm.boot", nil)
}

// spawn runs the process. After an error nothing runs; the folder is the
// caller's to clear.
func (d *Driver) spawn(f *host.Folder, spec *vmm.Spec, from origin) (*Machine, *recipe, error) {
	l, err := d.prepare(f, spec, from)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Begin(l.recipe.model()); err != nil {
		l.close()
		return nil, nil, err
	}
	p, err := l.start(d.binary)
	if err != nil {
		l.close()
		return nil, nil, err
	}
	var m *Machine
	if err = f.Started(p.PID); err == nil {
		m, err = newMachine(d, f, p, l.pipes, false)
	}
	if err != nil {
		_ = p.Kill() // a child that was not reaped can be killed
		_, _ = p.Wait()
		p.Close()
		l.close()
		return nil, nil, err
	}
	m.describe(l.recipe.model(), l.named)
	return m, &l.recipe, nil
}

// giveUp ends a machine that did not start and tells why it did not.
func (d *Driver) giveUp(ctx context.Context, m *Machine, err error) error {
	refused, isRefusal := errors.AsType[*refusal](err)
	byItself := errors.Is(err, vmm.ErrEnded)
	if dying(err) { // then what it said tells more than what we saw
		byItself = errors.Is(m.awaitEnd(ctx), vmm.ErrEnded)
	}
	// Not the caller's context: it may be why we are here.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		return fault.Wrap(fault.Internal, killed, "%s (process %d) cannot be ended", displayName, m.proc.PID).By(fault.Host).
			WithHint("it hangs in the kernel; restart the host if it does not go away")
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case byItself:
		return errStart(&m.ending)
	case isRefusal && refused.what == "vm.restore":
		return errStale("%v", refused)
	case isRefusal:
		return errRefused(refused)
	}
	return err
}

// Adopt implements vmm.Driver. A VMM that no longer answers is of no use to
// anybody and is ended.
func (d *Driver) Adopt(ctx context.Context, dir string) (vmm.Machine, error) {
	f, err := host.OpenFolder(dir, names...)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: nothing runs in %s", vmm.ErrEnded, dir)
	} else if err != nil {
		return nil, err
	}
	var of model
	p, err := f.Process(&of)
	if errors.Is(err, host.ErrNoRecord) {
		p, err = d.askProcess(ctx, f)
	}
	if ctx.Err() != nil {
		if p != nil {
			p.Close()
		}
		f.Close()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.Clear()
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w: %w", vmm.ErrEnded, dir, vmm.ErrUnseen, err)
	}
	m, err := d.takeOver(f, p)
	if err != nil {
		p.Close()
		f.Close()
		return nil, fmt.Errorf("adopt the machine in %s: %w", dir, err)
	}
	m.adopted(of)
	err = m.connect(ctx, d.answer)
	if err == nil {
		err = m.complete(ctx)
	}
	if err != nil {
		return nil, d.refuse(ctx, m, err)
	}
	return m, nil
}

// askProcess finds the VMM that answers in a folder whose record names none.
func (d *Driver) askProcess(ctx context.Context, f *host.Folder) (*host.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, d.answer)
	defer cancel()
	api := newREST(dialer(f, apiName))
	defer api.close()
	var first, second pingResponse
	if err := api.get(ctx, "vmm.ping", &first); err != nil {
		return nil, errors.Join(host.ErrNoProcess, err)
	}
	p, err := host.OpenProcess(first.PID, nil)
	if err != nil {
		return nil, errors.Join(host.ErrNoProcess, err)
	}
	// A second answer proves that the process was alive after it was opened.
	if err := api.get(ctx, "vmm.ping", &second); err != nil || second.PID != first.PID {
		p.Close()
		return nil, errors.Join(host.ErrNoProcess, err)
	}
	return p, f.Started(p.PID)
}

// takeOver makes a machine of a process that an earlier daemon has started.
func (d *Driver) takeOver(f *host.Folder, p *host.Process) (*Machine, error) {
	var pipes pipes
	for name, pipe := range pipes.named() {
		var err error
		if *pipe, err = f.OpenPipe(name); err != nil {
			pipes.close()
			return nil, err
		}
	}
	m, err := newMachine(d, f, p, pipes, true)
	if err != nil {
		pipes.close()
	}
	return m, err
}

func (d *Driver) refuse(ctx context.Context, m *Machine, err error) error {
	if ctx.Err() != nil {
		m.Release()
		return context.Cause(ctx)
	}
	d.log.WarnContext(ctx, "a Cloud Hypervisor of no use is ended", slog.Int("pid", m.proc.PID), slog.String("error", err.Error()))
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		m.Release()
		return fmt.Errorf("adopt: %w; end it: %w", err, killed)
	}
	return fmt.Errorf("%w: %w", vmm.ErrEnded, err)
}
