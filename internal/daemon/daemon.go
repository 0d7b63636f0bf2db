package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/drivers"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestapi"
	"github.com/xfeldman/aegisvm/internal/guestlink"
	"github.com/xfeldman/aegisvm/internal/hostclock"
	"github.com/xfeldman/aegisvm/internal/httpapi"
	"github.com/xfeldman/aegisvm/internal/image"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/logstore"
	"github.com/xfeldman/aegisvm/internal/machine"
	"github.com/xfeldman/aegisvm/internal/metrics"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/presence"
	"github.com/xfeldman/aegisvm/internal/router"
	"github.com/xfeldman/aegisvm/internal/schedule"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/store"
	"github.com/xfeldman/aegisvm/internal/tether"
	"github.com/xfeldman/aegisvm/internal/vault"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/workspace"
)

// Options is what a daemon is made of.
type Options struct {
	Config *config.Config
	Log    *slog.Logger
	Ready  func() // called once the API answers; nil is nobody

	// What tests replace. Nil is the real thing.
	Driver vmm.Driver
	Ground instance.Ground
	Memory func() (total, available size.Bytes, err error) // of the host
	// Agents is the port that the tether reaches agents at; 0 is their own.
	Agents uint16
	// Tether is given the tether when it works; nil is nobody.
	Tether func(*tether.Tether)
}

// Lock takes the home for this process: there is one daemon for each.
func Lock(home paths.Home) (*presence.Lock, error) {
	if err := home.Create(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot use %s", home).By(fault.Host).
			WithHint("set AEGIS_HOME to a folder that you can write to")
	}
	lock, err := presence.Acquire(home.Lock())
	if held, ok := errors.AsType[*presence.HeldError](err); ok {
		return nil, fault.New(fault.Conflict, "aegisd runs already in %s, as process %d", home, held.PID).
			WithHint("stop it: aegis down")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot use %s", home).By(fault.Host).
			WithHint("is the disk full? see: aegis doctor")
	}
	return lock, nil
}

// Run is the life of a daemon in a home that the caller has locked. It returns when
// ctx has ended and everything has been stopped, or when something fails that the
// daemon cannot do without.
func Run(ctx context.Context, o Options) (err error) {
	home := o.Config.Home
	parts := &stack{log: o.Log}
	defer func() {
		stopping, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopTimeout(o.Config),
			errors.New("the daemon's parts take too long to stop"))
		defer cancel()
		err = errors.Join(err, parts.stop(stopping))
	}()
	if err := writePID(home, parts); err != nil {
		return err
	}
	// From here on clients wait instead of being refused.
	ln, err := listen(ctx, home, parts)
	if err != nil {
		return err
	}
	d := &daemon{Options: o, parts: parts, leaving: newLeave()}
	if err := d.build(ctx); err != nil {
		return err
	}
	if err := d.secrets.Recover(ctx); err != nil {
		o.Log.ErrorContext(ctx, "secrets cannot be used", logattr.Err(err)) // what needs none goes on
	}
	if err := d.set.Recover(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	d.sweepKits(ctx)
	if err := d.tether.Recover(ctx); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	d.collectImages(ctx)
	removed := watchHome(ctx, o, parts)
	d.openFront(ctx)
	failed := d.serve(ln)
	// Before what they talk to; of a daemon that does not come this far, they end later.
	parts.push("sidecars", func(context.Context) error { return d.kits.sidecars.Close() })
	d.runSchedules(ctx)
	followClock(ctx, o, d.set, d.timers.Poke, parts)
	info := d.driver.Info()
	o.Log.InfoContext(ctx, "serving", logattr.Version(buildinfo.Version()), logattr.PID(os.Getpid()),
		logattr.Driver(info.Name), logattr.Accel(info.Accel), logattr.Why(info.Why))
	if o.Ready != nil {
		o.Ready()
	}
	select {
	case <-ctx.Done():
		o.Log.InfoContext(ctx, "stopping", logattr.Err(context.Cause(ctx)))
		return nil
	case <-removed:
		o.Log.InfoContext(ctx, "stopping with all instances, as the home is gone")
		d.leaving.withAll(true)
		return nil
	case <-d.leaving.asked:
		o.Log.InfoContext(ctx, "stopping with all instances")
		return nil
	case err := <-failed:
		return err
	}
}

// followClock sets the guests' clocks, and calls jumped, whenever the host's jumps. Where that cannot be seen
// the daemon goes on without.
func followClock(ctx context.Context, o Options, set *instance.Set, jumped func(), parts *stack) {
	clock, err := hostclock.New()
	if err != nil {
		o.Log.WarnContext(ctx, "the clock is not watched", logattr.Err(err))
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-clock.Jumps():
				o.Log.InfoContext(ctx, "the clock of the host has jumped")
				jumped()
				set.SetClocks(ctx)
			case <-ctx.Done():
				return
			}
		}
	}()
	parts.push("clock", func(context.Context) error {
		cancel()
		<-done
		return clock.Stop()
	})
}

func writePID(home paths.Home, parts *stack) error {
	if err := os.WriteFile(home.PIDFile(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the pid file: %w", err)
	}
	remove, err := removal(home.PIDFile())
	parts.push("pid file", func(context.Context) error { return remove() })
	return err
}

// removal returns what removes the file that is at path now, and nothing that another
// daemon may have put there later, in a home that was made again.
func removal(path string) (func() error, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return func() error { return nil }, err
	}
	return func() error {
		now, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) || err == nil && (!os.SameFile(now, before) || !now.ModTime().Equal(before.ModTime())) {
			return nil
		}
		return os.Remove(path)
	}, nil
}

// watchHome makes a daemon whose home is removed end with all that it runs: nobody could
// reach them any more. Where it cannot be watched the daemon goes on without.
func watchHome(ctx context.Context, o Options, parts *stack) <-chan struct{} {
	w, err := presence.WatchFile(o.Config.Home.Lock())
	if err != nil {
		o.Log.WarnContext(ctx, "the home is not watched", logattr.Err(err))
		return nil
	}
	parts.push("watch", func(context.Context) error { return w.Stop() })
	return w.Gone()
}

func listen(ctx context.Context, home paths.Home, parts *stack) (net.Listener, error) {
	ln, err := presence.Listen(ctx, home.Socket())
	if err != nil {
		return nil, fmt.Errorf("open the API's socket: %w", err)
	}
	remove, err := removal(home.Socket())
	parts.push("socket", func(context.Context) error {
		err := remove()
		if closed := ln.Close(); !errors.Is(closed, net.ErrClosed) { // the server has closed it if it served
			err = errors.Join(err, closed)
		}
		return err
	})
	return ln, err
}

// daemon is what Run builds.
type daemon struct {
	Options

	parts   *stack
	leaving *leave
	driver  vmm.Driver
	set     *instance.Set
	secrets *vault.Vault
	images  *image.Store
	guests  *guestapi.Server
	kits    *kits
	tether  *tether.Tether
	timers  *schedule.Runner
	router  string // address of the HTTP router, or ""
}

// build makes the core and what it stands on.
func (d *daemon) build(ctx context.Context) error {
	home := d.Config.Home
	if d.Memory == nil {
		d.Memory = hostMemory
	}
	if d.driver = d.Driver; d.driver == nil {
		var err error
		if d.driver, err = drivers.Open(ctx, d.Config, d.Log); err != nil {
			return err
		}
	}
	nets, shares := networks{d.Log}, workspaces{workspace.New(home, d.Log)}
	if d.Ground == nil {
		harness, err := paths.Program("aegis-harness")
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "the program for the VMs is missing").By(fault.Host).
				WithHint("install AegisVM again, or run make build in its source")
		}
		ground := machine.NewGround(machine.Options{
			Home: home, Harness: harness, Tools: []string{"aegis-mcp-guest"}, Driver: d.driver, Linker: guestlink.Linker{Log: d.Log}, Log: d.Log,
			Networks: nets, Workspaces: shares, Templates: d.Config.Templates == config.On,
			// Half of what the start that waits for it has: the other half is for a boot
			// without a template.
			Timeout: d.Config.BootTimeout / 2,
		})
		if err := ground.Recover(ctx); err != nil {
			return fmt.Errorf("recover: %w", err)
		}
		d.parts.push("machines", func(context.Context) error { return ground.Close() })
		d.Ground = ground
	}
	db, err := store.Open(ctx, home.Database())
	if err != nil {
		return err
	}
	d.parts.push("database", func(context.Context) error { return db.Close() })
	d.secrets = vault.New(home.MasterKey(), db)
	d.openKits(ctx, shares)
	archive, _ := d.Ground.(instance.Archive)
	if err := d.openImages(); err != nil {
		return err
	}
	d.openGuestAPI()
	d.set = instance.NewSet(instance.World{
		Driver:  d.driver,
		Ground:  d.Ground,
		Archive: archive,
		Linker:  guestlink.Linker{Log: d.Log},
		Store:   db,
		Logs: logstore.Folder{
			Dir:    func(id instance.ID) string { return home.Instance(string(id)) },
			Limits: logstore.DefaultLimits,
		},
		Secrets:  d.secrets,
		GuestAPI: d.guests,
		Images:   d.images,
		Networks: nets,

		Workspaces: shares,

		Kits:     d.kits,
		Doors:    router.Doors{Log: d.Log},
		Log:      d.Log,
		Limits:   limits(d.Config),
		Defaults: instance.Defaults{Memory: d.Config.Memory, VCPUs: d.Config.CPUs, Disk: d.Config.Disk},
		Memory:   d.Memory,
	})
	d.guests.SetInstances(d.set)
	d.tether = tether.New(tether.Options{Rows: db, Instances: visited{d.set}, Log: d.Log, Port: d.Agents}) //nolint:contextcheck // what it stores is of no caller's
	d.guests.SetTether(spoken{d.tether})
	if d.Tether != nil {
		d.Tether(d.tether)
	}
	d.parts.push("tether", func(context.Context) error { d.tether.Close(); return nil }) // where the start fails
	d.openSchedules(ctx, db)
	return nil
}

func limits(c *config.Config) instance.Limits {
	l := instance.DefaultLimits()
	l.Boot, l.Grace, l.PowerOff, l.Kill = c.BootTimeout, c.StopGrace, c.PowerOffTimeout, c.KillTimeout
	return l
}

// stopTimeout is what the parts' own limits add up to, and some more.
func stopTimeout(c *config.Config) time.Duration {
	return c.StopGrace + c.PowerOffTimeout + 2*c.KillTimeout + instance.DefaultLimits().Save + 10*time.Second
}

// serve answers on ln. The channel tells when that fails.
func (d *daemon) serve(ln net.Listener) <-chan error {
	numbers := metrics.New(d.set.List)
	changes, _ := d.set.Watch() // ends with the set
	server := httpapi.New(httpapi.Config{
		Runner:    runner{d.set},
		Instances: d.set,
		Secrets:   toldSecrets{d.secrets, d.kits.sidecars.Look},
		Images:    d.images,
		Kits:      d.kits,
		Tether:    d.tether,
		Schedules: d.timers,
		Status:    d.status,
		Shutdown:  d.leaving.withAll,
		Metrics:   numbers.Handler(),
		Log:       d.Log,
	}, os.Getuid())
	failed, served, counted := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(counted)
		numbers.Count(changes)
	}()
	go func() {
		defer close(served)
		if err := server.Serve(ln); err != nil {
			failed <- err
		}
	}()
	// The two stop together: streams end when their runs do, and the runs' clients
	// are told through them.
	d.parts.push("instances and API", func(ctx context.Context) error {
		closed := make(chan error, 1)
		go func() { closed <- server.Close(ctx) }()
		d.tether.Close() // it holds instances awake, and has clients wait
		err := d.set.Close(ctx, d.leaving.how())
		server.Hurry()
		err = errors.Join(err, <-closed)
		<-served
		<-counted
		return err
	})
	return failed
}

func (d *daemon) status() api.Status {
	info := d.driver.Info()
	return api.Status{
		Status:    "running",
		Version:   buildinfo.Version(),
		PID:       os.Getpid(),
		Home:      string(d.Config.Home),
		Backend:   info.Name,
		Accel:     info.Accel,
		Isolation: string(info.Isolation),
		VMM:       info.Version,
		Capabilities: api.Abilities{
			// A machine that can be saved can be forked: see machine.Ground.Capture.
			Pause: info.Abilities.Pause, Save: info.Abilities.Save, Fork: info.Abilities.Save,
		},
		Instances: d.set.Running(),
		Router:    d.router,
	}
}
