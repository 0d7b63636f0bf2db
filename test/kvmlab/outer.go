package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// The lab's machine: as small as the tests allow.
const (
	labCPUs   = "2"
	labMemory = "4G"
	labDisk   = "24G"
)

// What protects from a network, a build, a machine that hang. Jobs have bounds of their own.
const (
	prepareTimeout = 30 * time.Minute
	bootTimeout    = 5 * time.Minute // and what the lab does before its first job
)

// stopGrace is what a program gets to end after Ctrl-C; `aegis run` deletes its machine.
const stopGrace = 30 * time.Second

// outer is the host's end.
type outer struct {
	state string // keeps home, share and payload
	bin   string
	test  string // a home that set-up has filled
	only  string

	prepare bool // and start nothing
}

func (o *outer) home() string  { return filepath.Join(o.state, "home") }
func (o *outer) share() string { return filepath.Join(o.state, "share") }

// payload is the folder of what the lab is given: the test home, programs, tests.
func (o *outer) payload(names ...string) string {
	return filepath.Join(append([]string{o.state, "payload"}, names...)...)
}

func (o *outer) run(ctx context.Context) (err error) {
	if on := runtime.GOOS + "/" + runtime.GOARCH; on != "linux/amd64" {
		return fmt.Errorf("the lab emulates AMD's virtualization, for drivers of Linux: it needs a host of linux/amd64, not %s", on)
	}
	root, err := output(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	p, err := makePlan(root, o.only)
	if err != nil {
		return err
	}
	if len(p.Jobs) == 0 {
		_ = printTable(os.Stdout, nil, p.LeftOut)
		return errors.New("nothing to run")
	}
	image, err := o.ready(ctx, root, &p)
	defer func() { err = errors.Join(err, o.down(context.WithoutCancel(ctx))) }()
	if err != nil || o.prepare {
		return err
	}
	limit := p.limit() + bootTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the lab took more than %v", limit))
	defer cancel()
	ran := o.aegis(ctx, "run", "--image", image, "--pull", "never", "--cpus", labCPUs, "--memory", labMemory, "--disk", labDisk,
		"--egress", "none", "--workspace", o.share(), "--", filepath.Join(share, "kvmlab"), "-inside").Run()
	bad, err := o.tell(&p)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ran != nil:
		return fmt.Errorf("the lab: %w", ran)
	case bad > 0:
		return fmt.Errorf("%d tests did not pass; their output is in %s", bad, filepath.Join(o.share(), outName))
	}
	return nil
}

// ready makes everything that the lab is made of, starts its daemon, and returns the name of its
// image.
func (o *outer) ready(ctx context.Context, root string, p *plan) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, prepareTimeout, fmt.Errorf("preparing the lab took more than %v", prepareTimeout))
	defer cancel()
	if err := o.fill(ctx, root, p); err != nil {
		return "", err
	}
	if err := o.ground(ctx); err != nil {
		return "", err
	}
	if err := o.aegis(ctx, "up").Run(); err != nil {
		return "", err
	}
	return o.ensureImage(ctx)
}

// tell prints the table of what came out of the lab.
func (o *outer) tell(p *plan) (bad int, err error) {
	var all []outcome
	for i := range p.Jobs {
		of, err := readJob(filepath.Join(o.share(), outName), &p.Jobs[i])
		if err != nil {
			return 0, err
		}
		all = append(all, of...)
	}
	say("\n")
	return printTable(os.Stdout, all, p.LeftOut), nil
}

// aegis returns a command of the CLI on the lab's own home.
func (o *outer) aegis(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(o.bin, "aegis"), args...)
	cmd.Env = append(os.Environ(),
		"AEGIS_HOME="+o.home(), "AEGIS_ROUTER=off", "AEGIS_ACCEL=tcg", "AEGIS_VMM=qemu", "AEGIS_TEMPLATES=off",
		"AEGIS_QEMU="+filepath.Join(o.state, wrapperName), "AEGIS_VM_USER=root")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own: Ctrl-C comes to this program, which passes it on once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	return cmd
}

// down ends the lab's daemon, and with it whatever runs there.
func (o *outer) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*stopGrace)
	defer cancel()
	return o.aegis(ctx, "down").Run()
}

// output runs a program in dir and returns what it prints, without the last newline.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
