package libkrun

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

// Options configure a Driver. The zero value is the default.
type Options struct {
	Worker  string // path of aegis-vmm-worker; "" is where AegisVM's programs are
	Library string // name or path of libkrun; "" is where packages install it
	Kernel  string // path of the kernel that virtualization is tried with; without one it is not tried
	Trust   bool   // do not try it
	// Verdicts is the folder that remembers whether that works; "" is one for each user
	// of this host, shared by all homes.
	Verdicts string
	// Account is the user that VMs run as when the daemon is root: a name that must
	// exist, or "" for aegis-vm if it exists and else a fixed unprivileged number.
	Account string
	Log     *slog.Logger // nil is none
}

// Driver runs machines with libkrun. It implements vmm.Driver.
type Driver struct {
	worker  string
	path    string
	version string
	why     string
	account *recipe.Account
	copies  *copies
	log     *slog.Logger
}

// driverName is vmm.Info's.
const driverName = "libkrun"

// Open finds the worker and the library, and out whether they can run a VM here, which
// may take some seconds the first time after a boot of the host.
func Open(ctx context.Context, o Options) (*Driver, error) {
	d := &Driver{worker: o.Worker, copies: &copies{}, log: o.Log}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if err := d.find(ctx, o.Library); err != nil {
		return nil, err
	}
	var err error
	if d.account, err = findAccount(o.Account); err != nil {
		return nil, err
	}
	if d.why, err = d.judge(ctx, &o); err != nil {
		return nil, err
	}
	return d, nil
}

// Info implements vmm.Driver.
func (d *Driver) Info() vmm.Info {
	return vmm.Info{
		Name: driverName, Version: d.version, Accel: accel, Isolation: vmm.Hardware,
		Abilities: vmm.Abilities{Pause: true}, Why: d.why, Identity: driverName + " " + d.version,
	}
}

// Start implements vmm.Driver. libkrun does not tell that a guest runs: when Start
// returns the worker has done all it can. What libkrun does not like of a machine after
// that is told as the machine's end.
func (d *Driver) Start(ctx context.Context, spec vmm.Spec, src vmm.Source) (vmm.Machine, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, ok := src.(vmm.Boot); !ok {
		return nil, fmt.Errorf("start from %T: %w", src, errors.ErrUnsupported)
	}
	if err := checkSpec(&spec); err != nil {
		return nil, err
	}
	f, err := makeFolder(ctx, spec.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of the machine: %w", err)
	}
	m, err := d.spawn(ctx, f, &spec)
	if err != nil {
		f.clear()
		f.close()
		return nil, err
	}
	if err := m.greet(ctx); err != nil {
		return nil, d.giveUp(ctx, m, err)
	}
	return m, nil
}

// spawn runs the worker. After an error nothing runs; the folder is the caller's to
// clear.
func (d *Driver) spawn(ctx context.Context, f *folder, spec *vmm.Spec) (*Machine, error) {
	l, err := d.prepare(f, spec)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := f.write(record{}); err != nil {
		return nil, err
	}
	p, err := l.start(d.worker)
	if err != nil {
		return nil, err
	}
	var m *Machine
	life, err := f.dial(ctx, lifeName)
	if err == nil {
		if err = f.started(p.id); err == nil {
			m, err = newMachine(f, p, life, l.console, l.words, false)
		}
		if err != nil {
			closeConn(life)
		}
	}
	if err != nil {
		_ = p.kill() // a child that was not reaped can be killed
		p.reap()
		p.close()
		return nil, err
	}
	l.console, l.words = nil, nil // the machine's
	m.network = spec.Network
	return m, nil
}

// giveUp ends a machine that did not start and tells why it did not.
func (d *Driver) giveUp(ctx context.Context, m *Machine, err error) error {
	byItself := errors.Is(err, vmm.ErrEnded)
	// Not the caller's context: it may be why we are here.
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	if killed := m.Kill(clean); killed != nil {
		return fault.Wrap(fault.Internal, killed, "the worker (process %d) cannot be ended", m.proc.id).By(fault.Host).
			WithHint("it hangs in the kernel; restart the host if it does not go away")
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case byItself:
		return errStart(&m.ending)
	}
	return err
}

// Adopt implements vmm.Driver.
func (d *Driver) Adopt(ctx context.Context, dir string) (vmm.Machine, error) {
	f, err := openFolder(dir, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: nothing runs in %s", vmm.ErrEnded, dir)
	} else if err != nil {
		return nil, err
	}
	p, life, err := f.process(ctx)
	if ctx.Err() != nil {
		f.close()
		closeConn(life)
		return nil, context.Cause(ctx)
	}
	if err != nil {
		f.clear()
		f.close()
		return nil, fmt.Errorf("%w: %s: %w: %w", vmm.ErrEnded, dir, vmm.ErrUnseen, err)
	}
	m, err := takeOver(f, p, life)
	if err != nil {
		closeConn(life)
		p.close()
		f.close()
		return nil, fmt.Errorf("adopt the machine in %s: %w", dir, err)
	}
	return m, nil
}

func takeOver(f *folder, p *process, life conn) (*Machine, error) {
	console, err := f.openPipe(consoleName)
	if err != nil {
		return nil, err
	}
	words, err := f.openPipe(wordsName)
	if err != nil {
		closeAll(console)
		return nil, err
	}
	m, err := newMachine(f, p, life, console, words, true)
	if err != nil {
		closeAll(console, words)
		return nil, err
	}
	m.network = f.has(netName)
	return m, nil
}

const (
	// startTimeout bounds the time from the worker's start to its word that the VM
	// starts. It protects callers without a deadline; a busy host takes under a second.
	startTimeout = 60 * time.Second
	// adoptTimeout bounds the first word of a worker whose record was not finished.
	adoptTimeout = 20 * time.Second
	// killTimeout bounds the end of a process after SIGKILL where Start cleans up: a
	// process that hangs in the kernel does not end.
	killTimeout = 20 * time.Second
	// stopTimeout bounds the time from SIGSTOP until all threads stand.
	stopTimeout = 10 * time.Second
)
