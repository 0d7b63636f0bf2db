package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// versionTimeout bounds "qemu --version".
const versionTimeout = 20 * time.Second

// Driver runs machines with QEMU. It implements vmm.Driver.
type Driver struct {
	binary  string
	version Version
	arch    string // of guests
	accel   Accel  // KVM or TCG
	why     string
	account *account
	cgroups *cgroups // nil where none are delegated
	copies  *copies
	tsc     int
	log     *slog.Logger
	answer  time.Duration // adoptTimeout, or a test's

	platform string // what all its machines' shapes have in common
}

// driverName is vmm.Info's.
const driverName = "qemu"

// Open finds QEMU and decides how it will execute guests, which may take some
// seconds the first time after a boot of the host.
func Open(ctx context.Context, o Options) (*Driver, error) {
	d := &Driver{binary: o.Binary, log: o.Log, arch: cmp.Or(o.Arch, runtime.GOARCH), copies: &copies{}, answer: adoptTimeout}
	if d.binary == "" {
		d.binary = Program()
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if o.Accel, err = ParseAccel(string(o.Accel)); err != nil {
		return nil, err
	}
	if d.binary, err = exec.LookPath(d.binary); err != nil {
		return nil, errNotFound(o.Binary, err)
	}
	if d.binary, err = filepath.Abs(d.binary); err != nil {
		return nil, err
	}
	if d.version, err = askVersion(ctx, d.binary); err != nil {
		return nil, err
	}
	if d.version.before(oldest) {
		return nil, errTooOld(d.version)
	}
	if d.account, err = findAccount(o.Account); err != nil {
		return nil, err
	}
	d.cgroups = findCgroups()
	d.tsc = tscKHz(ctx)
	if d.accel, d.why, err = d.chooseAccel(ctx, o); err != nil {
		return nil, err
	}
	r := d.recipe(&vmm.Spec{})
	d.platform = r.platform()
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
	isolation := vmm.Emulated
	if d.accel == KVM {
		isolation = vmm.Hardware
	}
	return vmm.Info{
		Name: driverName, Version: d.version.String(), Accel: string(d.accel), Isolation: isolation,
		Abilities: vmm.Abilities{Pause: true, Save: true, Fork: true}, Why: d.why,
		Identity: identity(d.version, d.platform),
	}
}

// Start implements vmm.Driver.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	var m *Machine
	var err error
	switch from := src.(type) {
	case vmm.Boot:
		m, err = d.start(ctx, &spec, origin{}, func(context.Context, *Machine) error { return nil })
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

// start runs a VMM and makes it a machine. It closes what from has.
func (d *Driver) start(ctx context.Context, spec *vmm.Spec, from origin, ready func(context.Context, *Machine) error) (*Machine, error) {
	f, err := makeFolder(ctx, spec.Dir)
	if err != nil {
		closeAll(from.memory)
		return nil, fmt.Errorf("folder of the machine: %w", err)
	}
	m, err := d.spawn(f, spec, from)
	if err != nil {
		f.clear()
		f.close()
		return nil, err
	}
	err = m.connect(ctx, startTimeout)
	if err == nil {
		err = m.awaitNetwork(ctx)
	}
	if err == nil {
		err = ready(ctx, m)
	}
	if err != nil {
		return nil, d.giveUp(ctx, m, err)
	}
	return m, nil
}

// spawn runs the process. After an error nothing runs; the folder is the
// caller's to clear.
func (d *Driver) spawn(f *folder, spec *vmm.Spec, from origin) (*Machine, error) {
	l, err := d.prepare(f, spec, from)
	if err != nil {
		return nil, err
	}
	if err := f.begin(l.recipe.model()); err != nil {
		l.close()
		return nil, err
	}
	p, err := l.start(d.binary)
	if err != nil {
		l.close()
		return nil, err
	}
	var m *Machine
	if err = f.started(p.pid); err == nil {
		m, err = newMachine(f, p, l.console, l.words, false)
	}
	if err != nil {
		_ = p.kill() // a child that was not reaped can be killed
		_, _ = p.wait()
		p.close()
		l.close()
		return nil, err
	}
	m.network = spec.Network
	return m, nil
}

// giveUp ends a machine that did not start and tells why it did not.
func (d *Driver) giveUp(ctx context.Context, m *Machine, err error) error {
	byItself := errors.Is(err, vmm.ErrEnded)
	if dying(err) || errors.Is(err, errRefused) { // then what QEMU said tells more than what we saw
		byItself = errors.Is(m.awaitEnd(ctx), vmm.ErrEnded)
	}
	// Not the caller's context: it may be why we are here.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		return fault.Wrap(fault.Internal, killed, "QEMU (process %d) cannot be ended", m.proc.pid).By(fault.Host).
			WithHint("it hangs in the kernel; restart the host if it does not go away")
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case byItself && errors.Is(err, errRefused) && m.ending.refused():
		return errStale("QEMU does not load it: %s", lastWords(m.ending.stderr))
	case byItself:
		return errStart(&m.ending)
	case errors.Is(err, errRefused):
		return errStale("%v", err)
	default:
		return err
	}
}

// Adopt implements vmm.Driver. A VMM that no longer answers is of no use to
// anybody and is ended.
func (d *Driver) Adopt(ctx context.Context, dir string) (vmm.Machine, error) {
	f, err := openFolder(dir, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: nothing runs in %s", vmm.ErrEnded, dir)
	} else if err != nil {
		return nil, err
	}
	p, err := f.process(ctx)
	if ctx.Err() != nil {
		f.close()
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.clear()
		f.close()
		return nil, fmt.Errorf("%w: %s: %w: %w", vmm.ErrEnded, dir, vmm.ErrUnseen, err)
	}
	m, err := takeOver(f, p)
	if err != nil {
		p.close()
		f.close()
		return nil, fmt.Errorf("adopt the machine in %s: %w", dir, err)
	}
	if err := m.connect(ctx, d.answer); err != nil {
		return nil, d.refuse(ctx, m, err)
	}
	if m.loading {
		return nil, d.refuse(ctx, m, errHalfLoaded)
	}
	return m, nil
}

// errHalfLoaded tells of a VMM whose daemon died before it had loaded a saved
// machine.
var errHalfLoaded = errors.New("its saved machine was not loaded")

func takeOver(f *folder, p *process) (*Machine, error) {
	console, err := f.openPipe(consoleName)
	if err != nil {
		return nil, err
	}
	words, err := f.openPipe(wordsName)
	if err != nil {
		closeAll(console)
		return nil, err
	}
	m, err := newMachine(f, p, console, words, true)
	if err != nil {
		closeAll(console, words)
		return nil, err
	}
	var st unix.Stat_t
	m.network = unix.Fstatat(int(f.dir.Fd()), netName, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	return m, nil
}

func (d *Driver) refuse(ctx context.Context, m *Machine, err error) error {
	if ctx.Err() != nil {
		m.Release()
		return context.Cause(ctx)
	}
	d.log.WarnContext(ctx, "a QEMU of no use is ended", slog.Int("pid", m.proc.pid), slog.String("error", err.Error()))
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		m.Release()
		return fmt.Errorf("adopt: %w; end it: %w", err, killed)
	}
	return fmt.Errorf("%w: %w", vmm.ErrEnded, err)
}
