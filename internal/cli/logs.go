package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/config"
)

type logsOptions struct {
	app    *app
	follow bool
	since  sinceFlag
	tail   tailFlag
	execs  bool
}

func newLogs(a *app) *cobra.Command {
	o := &logsOptions{app: a, tail: -1}
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] X",
		Short: "show what an instance's program wrote",
		Long: `Show what an instance's program wrote, as it was: its stdout on stdout, its stderr on stderr. AegisVM's
own remarks are among it, on stdout, with "[system] " before them. The log survives restarts of the
VM and of the daemon; the oldest lines go when it reaches its limit.

With --follow it goes on with what comes until the instance is deleted. That does not keep the
instance awake.`,
		Example: `  aegis logs web
  aegis logs -f --tail 20 web
  aegis logs --since 10m web
  aegis logs --exec web                # what "aegis exec" ran in it, too`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes")
	f.Var(&o.since, "since", "only what came since `WHEN`: a time as in RFC 3339, or how long ago, such as 10m")
	f.VarP(&o.tail, "tail", "n", "only the last `NUMBER` of lines")
	f.BoolVar(&o.execs, "exec", false, "also what commands of aegis exec wrote")
	return cmd
}

func (o *logsOptions) run(ctx context.Context, ref string) error {
	p := newLogPrinter(o.app.out, o.app.err)
	q := client.LogQuery{Since: string(o.since), Tail: int(o.tail), Follow: o.follow, Execs: o.execs}
	for entry, err := range o.app.client().Logs(ctx, ref, q) {
		if err != nil {
			return errors.Join(p.flush(), err)
		}
		if err := p.print(entry); err != nil {
			return err
		}
		// Who follows wants each line now; who does not wants all of them soon.
		if o.follow {
			if err := p.flush(); err != nil {
				return err
			}
		}
	}
	return p.flush()
}

// logPrinter writes lines of a log to the stream that each came from. The order of
// the lines holds over both.
type logPrinter struct {
	streams map[string]*bufio.Writer
	last    string // the stream that was written last
	open    bool   // its last line has no end
}

func newLogPrinter(out, err io.Writer) *logPrinter {
	const buffer = 64 << 10
	return &logPrinter{streams: map[string]*bufio.Writer{
		"stdout": bufio.NewWriterSize(out, buffer), "stderr": bufio.NewWriterSize(err, buffer),
	}}
}

func (p *logPrinter) print(e api.LogEntry) error {
	stream := e.Stream
	if p.streams[stream] == nil {
		stream = "stdout"
	}
	if p.last != stream {
		if err := p.flush(); err != nil {
			return err
		}
		p.last, p.open = stream, false
	}
	line := e.Bytes
	if line == nil {
		line = []byte(e.Line)
	}
	prefix, end := "", "\n"
	if e.Source == "system" {
		prefix = "[system] "
		if p.open {
			prefix = "\n" + prefix
		}
	}
	p.open = e.Open
	if e.Open {
		end = ""
	}
	w := p.streams[stream]
	_, _ = w.WriteString(prefix) // a bufio.Writer keeps its first error
	_, _ = w.Write(line)         // as above
	_, err := w.WriteString(end)
	return output(stream, err)
}

func (p *logPrinter) flush() error {
	if p.last == "" {
		return nil
	}
	return output(p.last, p.streams[p.last].Flush())
}

func output(stream string, err error) error {
	if err == nil {
		return nil
	}
	return &client.OutputError{Stream: stream, Err: err}
}

// sinceFlag is a time, or how long ago that was.
type sinceFlag string

func (f *sinceFlag) Set(s string) error {
	if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
		if _, err := config.ParseDuration(s); err != nil {
			return fmt.Errorf("%q is neither a time such as 2026-01-31T09:00:00Z nor how long ago that was, such as 10m", s)
		}
	}
	*f = sinceFlag(s)
	return nil
}

func (f *sinceFlag) String() string { return string(*f) }
func (*sinceFlag) Type() string     { return "when" }

// tailFlag is a number of lines; negative is all.
type tailFlag int

func (f *tailFlag) Set(s string) error {
	if s == "all" {
		*f = -1
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a number of lines, nor all", s)
	}
	*f = tailFlag(n)
	return nil
}

func (f *tailFlag) String() string { return "all" }
func (*tailFlag) Type() string     { return "number" }
