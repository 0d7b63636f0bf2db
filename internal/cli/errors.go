package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/launch"
)

// The exit statuses that are AegisVM's own.
const (
	statusFailed     = 1
	statusUsage      = 2
	statusNoDaemon   = 3
	statusBrokenPipe = 128 + int(syscall.SIGPIPE) // as a shell reports a tool that it killed
	statusAegis      = 125                        // aegis failed where the status is the program's
)

// statuses is the table from kinds of errors to exit statuses, for commands whose
// status is their own, and for those that return a program's.
var statuses = map[fault.Kind]struct{ own, program int }{
	fault.Invalid:     {statusUsage, statusUsage},
	fault.NotFound:    {statusFailed, statusAegis},
	fault.Conflict:    {statusFailed, statusAegis},
	fault.Denied:      {statusFailed, statusAegis},
	fault.Unavailable: {statusFailed, statusAegis},
	fault.Exhausted:   {statusFailed, statusAegis},
	fault.TooLarge:    {statusFailed, statusAegis},
	fault.Timeout:     {statusFailed, statusAegis},
	fault.Canceled:    {statusFailed, statusAegis},
	fault.Internal:    {statusFailed, statusAegis},
}

// statusError ends a command with a status of which everything has been said.
type statusError int

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("status %d", int(e)) }

// interruptedError is the cause of a context that a signal has ended.
type interruptedError struct{ sig syscall.Signal }

// Error implements error.
func (e interruptedError) Error() string { return "interrupted: " + e.sig.String() }

// programStatus marks commands whose exit status is that of a program in a VM.
const programStatus = "program-status"

// statusOf is the exit status for an error of a command.
func statusOf(cmd *cobra.Command, err error) int {
	if s, ok := errors.AsType[statusError](err); ok {
		return int(s)
	}
	if i, ok := errors.AsType[interruptedError](err); ok {
		return 128 + int(i.sig)
	}
	if isBrokenPipe(err) {
		return statusBrokenPipe
	}
	if exit := fault.ExitOf(err); exit != 0 {
		return exit
	}
	of := statuses[fault.KindOf(err)]
	if cmd.Annotations[programStatus] != "" {
		// What the guest, the image or the daemon's settings call invalid is not the
		// command line.
		if _, launching := errors.AsType[*launch.Error](err); launching || fault.BlameOf(err) != "" {
			return statusAegis
		}
		return of.program
	}
	if errors.Is(err, client.ErrNotRunning) {
		return statusNoDaemon
	}
	return of.own
}

// isBrokenPipe tells whether nobody reads the output any more, which is nothing to
// talk about.
func isBrokenPipe(err error) bool {
	_, output := errors.AsType[*client.OutputError](err)
	return output && errors.Is(err, syscall.EPIPE)
}

// finish is where errors end: it prints err and returns the exit status.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	_, said := errors.AsType[statusError](err)
	_, interrupted := errors.AsType[interruptedError](err)
	if !said && !interrupted && !isBrokenPipe(err) {
		_, _ = fmt.Fprint(a.err, describeError(err)) // see say
	}
	return statusOf(cmd, err)
}

// culprits names whose fault an error is, where that is not plain from the message.
var culprits = map[fault.Blame]string{
	fault.Host:   "this host",
	fault.Driver: "the virtual machine monitor",
	fault.Image:  "the image",
	fault.Guest:  "the system in the VM",
}

// describeError returns the lines that a person gets to read.
func describeError(err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "aegis: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  "))
	if d, ok := errors.AsType[*launch.Error](err); ok {
		for _, line := range d.Log {
			fmt.Fprintf(&b, "  | %s\n", line)
		}
	}
	if who, ok := culprits[fault.BlameOf(err)]; ok {
		fmt.Fprintf(&b, "  at fault: %s\n", who)
	}
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", hint)
	}
	return b.String()
}

// usage is an error of the command line.
func usage(cmd *cobra.Command, format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, format, args...).WithHint("see: %s --help", cmd.CommandPath())
}

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP ends. The
// second does what it does to any program. What was ignored stays ignored, as in
// `nohup aegis`. SIGPIPE becomes an error of the write.
func interruptible(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	// Not signal.Ignore, which programs that are started would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(interruptedError{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
		<-done
	}
}
