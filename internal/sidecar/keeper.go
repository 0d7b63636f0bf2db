package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// keeper runs one sidecar, again and again.
type keeper struct {
	s       *Supervisor
	post    *post
	program Program
	nudged  <-chan struct{} // its file or a secret has changed

	said string // why it could not be started, last
}

// run returns when ctx has ended and no process is left.
func (k *keeper) run(ctx context.Context) {
	l := k.s.o.Limits
	for delay := l.Backoff; ctx.Err() == nil; {
		begin := time.Now()
		err := k.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begin) >= l.Steady {
			delay, k.said = l.Backoff, ""
		}
		if text := err.Error(); text != k.said { // what is wrong is not told each minute
			k.said = text
			k.tell(fmt.Sprintf("%s; it is started again in %v", text, delay))
		}
		k.await(ctx, delay)
		delay = min(2*delay, l.MaxBackoff)
	}
}

// await returns after the delay; before that if something has changed for one that could
// not even be started.
func (k *keeper) await(ctx context.Context, delay time.Duration) {
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.nudged:
	case <-ctx.Done():
	}
}

func (k *keeper) tell(text string) {
	k.s.o.Tell(k.post.group.ID, k.program.Name+": "+text)
}

// once starts the sidecar and returns when it has ended, and why.
func (k *keeper) once(ctx context.Context) error {
	cmd, err := k.command(ctx)
	if err != nil {
		return fmt.Errorf("it cannot be started: %w", err)
	}
	in, out, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("it cannot be started: %w", err)
	}
	defer func() { _ = out.Close() }() // or it is closed already
	cmd.ExtraFiles = []*os.File{in}    // descriptor 3
	lines := newLines(k.tell)
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.WaitDelay = time.Second // what holds its output and left its group is not waited for
	started := make(chan error, 1)
	k.s.starts <- func() { started <- cmd.Start() }
	err = <-started
	_ = in.Close() // the child has its own
	if err != nil {
		return fmt.Errorf("it cannot be started: %w", err)
	}
	forget := k.record(ctx, cmd)
	k.s.o.Log.InfoContext(ctx, "sidecar runs", logattr.Handle(k.post.group.Handle), logattr.Part(k.program.Name), logattr.PID(cmd.Process.Pid))
	k.post.alive.Add(1)
	var work sync.WaitGroup
	ended := make(chan struct{})
	work.Go(func() { k.feed(out, ended) }) //nolint:contextcheck // it goes on until the process has ended
	work.Go(func() { k.stopWith(ctx, cmd.Process.Pid, ended) })
	err = cmd.Wait()
	k.post.alive.Add(-1)
	// The number of the group is not given to another within moments, even if it is empty.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of the group; nothing is no error
	close(ended)
	_ = out.Close() // ends a write that nobody reads
	work.Wait()
	lines.flush()
	forget()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return errors.New("it has ended")
	}
	return fmt.Errorf("it has ended: %w", err)
}

// stopWith ends the sidecar's group when ctx ends.
func (k *keeper) stopWith(ctx context.Context, pid int, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM) // it may end at the same moment
	grace := time.NewTimer(k.s.o.Limits.Grace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		_ = syscall.Kill(-pid, syscall.SIGKILL) // as above
	}
}

// command prepares the process.
func (k *keeper) command(ctx context.Context) (*exec.Cmd, error) {
	o, g := k.s.o, k.post.group
	path, err := o.Lookup(k.program.Name)
	if err != nil {
		return nil, err
	}
	dir, err := o.Dir(g.Handle)
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			env[name] = v
		}
	}
	if len(g.Secrets) > 0 {
		values, err := o.Resolve(ctx, g.Secrets)
		if err != nil {
			return nil, err
		}
		for name, v := range values {
			env[name] = v.Reveal()
		}
	}
	maps.Copy(env, map[string]string{
		"AEGIS_INSTANCE": g.Handle, "AEGIS_INSTANCE_ID": g.ID, "AEGIS_SOCKET": o.Home.Socket(), "AEGIS_HOME": string(o.Home),
		"AEGIS_SECRETS_FD": "3", markVariable: rand.Text(),
	})
	if k.program.Config != "" {
		env["AEGIS_KIT_CONFIG"] = filepath.Join(dir, k.program.Config)
	}
	cmd := exec.Command(path) //nolint:noctx // a kit's program; stopWith ends it in its own way
	cmd.Dir = dir
	cmd.SysProcAttr = attributes()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	return cmd, nil
}

// markVariable tells the processes of one start of a sidecar from all others.
const markVariable = "AEGIS_SIDECAR_MARK"

// inherited are the variables that sidecars have of the daemon. The rest is not theirs.
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}
