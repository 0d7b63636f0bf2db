package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/xfeldman/aegisvm/internal/buildinfo"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Main is aegisd: it returns the exit status. more replaces parts, for tests.
func Main(args []string, more func(*Options)) int {
	notify := inheritNotifier()
	if answered(args) {
		return 0
	}
	err := start(args, more, notify)
	if err == nil {
		return 0
	}
	notify.failed(err)
	// Nobody is left to tell of an error in telling.
	_, _ = fmt.Fprintf(os.Stderr, "aegisd: %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		_, _ = fmt.Fprintf(os.Stderr, "  hint: %s\n", hint)
	}
	if fault.KindOf(err) == fault.Invalid {
		return 2
	}
	return 1
}

// answered answers --help and --version, and says whether it was asked to.
func answered(args []string) bool {
	flags := newFlags()
	err := flags.Parse(args)
	// An error in writing leaves nobody to tell of it.
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, _ = fmt.Fprintf(os.Stdout, "aegisd is AegisVM's daemon. It needs no arguments; `aegis up` starts it.\n\n"+
			"Usage:\n  aegisd [flags]\n\nFlags:\n%s", flags.FlagUsages())
		return true
	case err == nil && flags.Changed("version"):
		_, _ = fmt.Fprintf(os.Stdout, "aegisd %s\n", buildinfo.Version())
		return true
	}
	return false
}

// newFlags has a flag for each setting.
func newFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("aegisd", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	flags.Bool("version", false, "print the version")
	for _, key := range config.Keys() {
		flags.String(config.Flag(key), "", config.Doc(key))
	}
	return flags
}

// settings reads flags, environment and file.
func settings(args []string) (*config.Config, error) {
	flags := newFlags()
	if err := flags.Parse(args); err != nil {
		return nil, fault.New(fault.Invalid, "%v", err).WithHint("see: aegisd --help")
	}
	if flags.NArg() > 0 {
		return nil, fault.New(fault.Invalid, "stray argument %q", flags.Arg(0)).WithHint("aegisd needs no arguments; see: aegisd --help")
	}
	given := map[string]string{}
	for _, key := range config.Keys() {
		if f := flags.Lookup(config.Flag(key)); f.Changed {
			given[key] = f.Value.String()
		}
	}
	home, err := paths.Default()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "no home").WithHint("set AEGIS_HOME")
	}
	return config.Load(home, os.Environ(), given)
}

func start(args []string, more func(*Options), notify *notifier) error {
	// A dump of this process's memory would have the secrets in it. What cannot be set
	// is as the user has it.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	boundMemory()
	conf, err := settings(args)
	if err != nil {
		return err
	}
	lock, err := Lock(conf.Home)
	if err != nil {
		return err
	}
	// The lock is given back by the end of the process: who waits for it, as `aegis
	// down` does, waits for that.
	defer runtime.KeepAlive(lock)
	file, err := openLog(conf.Home.Log(), conf.LogSize)
	if err != nil {
		return err
	}
	var w io.Writer = file
	if term.IsTerminal(int(os.Stderr.Fd())) {
		w = io.MultiWriter(file, os.Stderr)
	}
	o := Options{Config: conf, Log: newLogger(w, conf), Ready: notify.ready}
	if more != nil {
		more(&o)
	}
	ctx, stop := signalContext()
	defer stop()
	if err = Run(ctx, o); err != nil {
		o.Log.ErrorContext(ctx, "end", logattr.Err(err))
	}
	return errors.Join(err, file.Close())
}

// signalContext ends with the first SIGINT or SIGTERM. The second kills: a stop
// that hangs must not need SIGKILL.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(fmt.Errorf("signal: %v", s)) //nolint:err113 // for the log
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
		<-done
	}
}
