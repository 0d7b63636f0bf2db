package bench

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/drivers"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// world is what samples are taken in. Its parts are started when they are first asked
// for, and end with it.
type world struct {
	conf   *config.Config
	driver vmm.Driver
	log    *slog.Logger
	tell   func(string) // how it goes, in words for people

	warm   *product
	bare   *bare
	server *server // of the warm product
	peer   *peer   // of bare
	ninep  *ninep

	noNinep error // why there is none
}

// The homes within the bench's.
const (
	warmHome  = "warm" // a daemon as users have it
	coldHome  = "cold" // a daemon without templates
	bareHome  = "bare" // machines without a daemon
	ninepHome = "9p"   // one with another kernel, and a share
)

func newWorld(ctx context.Context, conf *config.Config, tell func(string)) (*world, error) {
	log := slog.New(slog.DiscardHandler)
	d, err := drivers.Open(ctx, conf, log)
	if err != nil {
		return nil, err
	}
	w := &world{conf: conf, driver: d, log: log, tell: tell}
	return w, w.clear(ctx) // what one that was killed has left
}

// makeHome makes a home within the bench's, with the kernel of a folder. Images are the
// user's; what is written is on the same disk as the user's own instances.
func (w *world) makeHome(name, kernel string) (paths.Home, error) {
	from, home := w.conf.Home, paths.Home(filepath.Join(w.conf.Home.Bench(), name))
	if err := home.Create(); err != nil {
		return "", err
	}
	for to, target := range map[string]string{home.Kernel(): kernel, home.Images(): from.Images(), home.Config(): from.Config()} {
		if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
			continue // no settings of the user's
		}
		if err := os.Symlink(target, to); err != nil {
			return "", err
		}
	}
	return home, nil
}

// close ends everything and removes it.
func (w *world) close(ctx context.Context) error {
	var errs []error
	if w.peer != nil {
		errs = append(errs, w.peer.close(ctx))
	}
	if w.ninep != nil {
		errs = append(errs, w.ninep.close(ctx), w.ninep.bare.ground.Close())
	}
	if w.bare != nil {
		errs = append(errs, w.bare.ground.Close())
	}
	return errors.Join(append(errs, w.clear(ctx))...)
}

// clear ends the daemons of the bench's homes, and all machines in them, and removes the
// homes.
func (w *world) clear(ctx context.Context) error {
	var errs []error
	for _, name := range []string{warmHome, coldHome} {
		home := paths.Home(filepath.Join(w.conf.Home.Bench(), name))
		if _, err := os.Stat(home.Data()); err == nil {
			errs = append(errs, w.program(ctx, home, nil, "down", "--stop"))
		}
	}
	var machines []string
	for _, name := range []string{bareHome, ninepHome} {
		found, err := filepath.Glob(filepath.Join(w.conf.Home.Bench(), name, "data", "*", "*", "vmm"))
		machines, errs = append(machines, found...), append(errs, err)
	}
	for _, dir := range machines {
		m, err := w.driver.Adopt(ctx, dir)
		if err == nil {
			err = m.Kill(ctx)
		}
		if !errors.Is(err, vmm.ErrEnded) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err // what still runs keeps its files
	}
	return os.RemoveAll(w.conf.Home.Bench())
}
