package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/process"
)

// The limits of a command.
const (
	defaultTimeout = 120 * time.Second
	maxTimeout     = time.Hour
	// maxCapture is how much of the output of a command is kept, in bytes; the rest is counted.
	maxCapture = 8 << 20
	// showOutput is how much of it the model sees.
	showOutput = 24 << 10
	// keepOutputs is how many files of output are kept.
	keepOutputs = 50
)

// Bash returns the tool that runs commands in dir. Output that is too large to be shown is
// put into files of the folder outputs.
func Bash(dir, outputs string, timeout time.Duration) Tool {
	b := &bash{dir: dir, outputs: outputs, timeout: cmp.Or(timeout, defaultTimeout)}
	return Tool{
		Name: "bash",
		Description: "Run a command with bash. The working directory is " + dir + ". stdout and stderr come back together. " +
			"For servers and other things that go on, set background: the command's output goes to a file, and it lives on when you have answered.",
		Schema: object(
			"command*", field("string", "the command"),
			"timeout_s", field("integer", fmt.Sprintf("seconds until it is killed; default %d, at most %d", int(b.timeout.Seconds()), int(maxTimeout.Seconds()))),
			"background", field("boolean", "start it and come back at once"),
			"workdir", field("string", "another working directory"),
		),
		Run: b.run,
	}
}

type bash struct {
	dir, outputs string
	timeout      time.Duration
}

type bashArgs struct {
	Command    string  `json:"command"`
	TimeoutS   float64 `json:"timeout_s"`
	Background bool    `json:"background"`
	Workdir    string  `json:"workdir"`
}

func (b *bash) run(ctx context.Context, c Call) (Result, error) {
	args, err := read[bashArgs](c)
	if err != nil {
		return Result{}, err
	}
	if strings.TrimSpace(args.Command) == "" {
		return Result{}, errors.New("command is empty")
	}
	dir := resolve(b.dir, args.Workdir)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return Result{}, fmt.Errorf("workdir: %s is no folder", dir)
	}
	if args.Background {
		return b.background(ctx, c, args.Command, dir)
	}
	timeout := b.timeout
	if args.TimeoutS > 0 {
		timeout = min(time.Duration(args.TimeoutS*float64(time.Second)), maxTimeout)
	}
	return b.foreground(ctx, c, args.Command, dir, timeout)
}

func (b *bash) foreground(ctx context.Context, c Call, command, dir string, timeout time.Duration) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var out capture
	cmd := process.Command(ctx, c.Mark, shell(), "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended; something that it left holds the output
	}
	note := ""
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case ctx.Err() != nil:
		process.End(c.Mark)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			note = fmt.Sprintf("[killed after %v; set timeout_s higher, or background]", timeout)
		} else {
			note = "[killed: the user has stopped this]"
		}
	case ok && exit.ExitCode() < 0:
		note = fmt.Sprintf("[ended by a signal: %v]", exit)
	case ok:
		note = fmt.Sprintf("[exit status %d]", exit.ExitCode())
	case err != nil:
		return Result{}, fmt.Errorf("start the command: %w", err)
	}
	shown := b.show(&out)
	if note != "" {
		shown = strings.TrimSuffix(shown, "\n") + "\n" + note
	}
	if strings.TrimSpace(shown) == "" {
		shown = "(no output)"
	}
	return Result{Text: shown}, nil
}

// show returns output as the model sees it, with the file that has all where it is long.
func (b *bash) show(out *capture) string {
	data, lost := out.take()
	if len(data) <= showOutput {
		return string(data)
	}
	path, err := b.keep(data)
	where := "all of it is in " + path
	if err != nil {
		where = "it could not be kept in a file: " + err.Error()
	}
	if lost > 0 {
		where += fmt.Sprintf("; %d more bytes were dropped", lost)
	}
	return clip(string(data), showOutput) + "\n[the output is long: " + where + "]"
}

// keep puts output into a file, and removes the oldest of others.
func (b *bash) keep(data []byte) (string, error) {
	f, err := b.newOutput()
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

func (b *bash) newOutput() (*os.File, error) {
	if err := os.MkdirAll(b.outputs, 0o700); err != nil {
		return nil, err
	}
	if old, err := filepath.Glob(filepath.Join(b.outputs, "*.txt")); err == nil && len(old) >= keepOutputs {
		slices.Sort(old) // the names begin with the time
		for _, path := range old[:len(old)-keepOutputs+1] {
			_ = os.Remove(path) // what stays costs space and nothing else
		}
	}
	return os.CreateTemp(b.outputs, time.Now().UTC().Format("20060102T150405.000")+"-*.txt")
}

// background starts a command whose output goes to a file, and that outlives the run. It
// has the call's mark, so that a run that is stopped stops it.
func (b *bash) background(ctx context.Context, c Call, command, dir string) (Result, error) {
	f, err := b.newOutput()
	if err != nil {
		return Result{}, fmt.Errorf("make a file for the output: %w", err)
	}
	defer f.Close() //nolint:errcheck // the command has its own descriptor
	cmd := process.Command(context.WithoutCancel(ctx), c.Mark, shell(), "-c", command)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, f, f
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("start the command: %w", err)
	}
	go func() { _ = cmd.Wait() }() // reaps it, whenever it ends: it belongs to the user then
	return text("started in the background: process %d, output in %s\nstop it with: kill -- -%d", cmd.Process.Pid, f.Name(), cmd.Process.Pid), nil
}

// shell returns bash, or what there is instead.
func shell() string {
	if path, err := exec.LookPath("bash"); err == nil {
		return path
	}
	return "/bin/sh"
}

// resolve returns a path that may be relative to dir.
func resolve(dir, path string) string {
	switch {
	case path == "":
		return dir
	case path == "~" || strings.HasPrefix(path, "~/"):
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, path[1:])
		}
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
