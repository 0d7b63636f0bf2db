//go:build integration

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

func (h *host) client() *client.Client { return client.New(filepath.Join(h.home, "aegisd.sock")) }

// signal sends the daemon a signal and waits for its end.
func (h *host) signal(sig syscall.Signal) {
	h.t.Helper()
	pid := h.daemon()
	if err := syscall.Kill(pid, sig); err != nil {
		h.t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatalf("the daemon does not end after %v", sig)
		}
	}
}

func (h *host) up() {
	h.t.Helper()
	if out, err := h.aegis("up").CombinedOutput(); err != nil {
		h.t.Fatalf("aegis up: %v\n%s%s", err, out, h.log())
	}
}

// counter is a program that counts, once every 100 ms.
var counter = []string{"python3", "-uc", "import itertools, time\nfor i in itertools.count(): print(i); time.sleep(.1)"}

// create makes an instance and waits until its program runs.
func (h *host) create(handle string, command []string) string {
	h.t.Helper()
	never := int64(0)
	made, _, err := h.client().Create(h.t.Context(), api.CreateRequest{Handle: handle, Command: command, PauseAfterS: &never})
	if err == nil {
		_, err = h.client().Start(h.t.Context(), handle)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return made.ID
}

// counted returns the last line that a counter has logged, after checking that none
// is missing.
func (h *host) counted(handle string) int {
	h.t.Helper()
	n := 0
	for line, err := range h.client().Logs(h.t.Context(), handle, client.LogQuery{Tail: -1}) {
		if err != nil {
			h.t.Fatal(err)
		}
		if line.Source == "system" {
			continue
		}
		if line.Line != strconv.Itoa(n) {
			h.t.Fatalf("line %d of the log is %q", n, line.Line)
		}
		n++
	}
	return n
}

func (h *host) waitCount(handle string, atLeast int) int {
	h.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if n := h.counted(handle); n >= atLeast {
			return n
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s does not count on; log of the daemon:\n%s", handle, h.log())
		}
	}
}

// TestReplaceDaemon ends the daemon as an upgrade does, and as a crash does. The VM
// stays the same, its program goes on, and not a line of its output is missing. An
// exec in progress ends with a clear error.
func TestReplaceDaemon(t *testing.T) {
	h := newHost(t)
	id := h.create("counter", counter)
	vm := h.machines()[id]
	if vm == 0 {
		t.Fatalf("no VM of %s in %v", id, h.processes())
	}
	n := h.waitCount("counter", 3)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		attach, err := h.client().Exec(t.Context(), "counter", api.ExecRequest{Command: []string{"sleep", "600"}})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := attach.Stream(t.Context(), client.Streams{})
			ended <- err
		}()
		h.signal(sig)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "aegisd") {
			t.Errorf("the exec ended with %v", err)
		}
		h.up()
		n = h.waitCount("counter", n+5)
		if now := h.machines()[id]; now != vm {
			t.Errorf("after %v the VM is process %d, was %d", sig, now, vm)
		}
		if left := h.execed("counter", "pgrep", "-x", "sleep"); left != "" {
			t.Errorf("the exec's process lives on: %s", left)
		}
	}
	if _, err := h.client().Pause(t.Context(), "counter"); err != nil {
		t.Fatal(err)
	}
	h.signal(syscall.SIGKILL)
	h.up()
	if info, err := h.client().Info(t.Context(), "counter"); err != nil || info.State != api.StatePaused {
		t.Errorf("a paused instance is %s after a restart, %v", info.State, err)
	}
	if _, err := h.client().Resume(t.Context(), "counter"); err != nil {
		t.Fatal(err)
	}
	h.waitCount("counter", n+5)
	// down stops it, also without a daemon; after up it is there, stopped, and starts on
	// request.
	h.signal(syscall.SIGKILL)
	if r := h.try("down"); r.status != 0 || !strings.Contains(r.stderr, "left VMs behind") || !strings.Contains(r.stderr, "stopped counter") {
		t.Errorf("down after a kill: %+v", r)
	}
	if left := h.machines(); len(left) > 0 {
		t.Errorf("down has left %v", left)
	}
	h.up()
	if info, err := h.client().Info(t.Context(), "counter"); err != nil || info.State != api.StateStopped || !info.Enabled {
		t.Errorf("after down and up: %s, enabled %v, %v", info.State, info.Enabled, err)
	}
	if _, err := h.client().Delete(t.Context(), "counter"); err != nil {
		t.Fatal(err)
	}
}

// execed runs a command in an instance and returns its output.
func (h *host) execed(handle string, command ...string) string {
	h.t.Helper()
	attach, err := h.client().Exec(h.t.Context(), handle, api.ExecRequest{Command: command})
	if err != nil {
		h.t.Fatal(err)
	}
	var out strings.Builder
	if _, err := attach.Stream(h.t.Context(), client.Streams{Stdout: &out}); err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// TestKilledDaemon kills the daemon at random moments while instances are started,
// paused, used and deleted. After each restart what it lists is what there is.
func TestKilledDaemon(t *testing.T) {
	h := newHost(t)
	rng := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	id := h.create("keeper", counter)
	vm := h.machines()[id]
	kills, begin := stress(10, 100), time.Now()
	for range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var users sync.WaitGroup
		for i := range 2 {
			users.Go(func() { h.use(ctx, fmt.Sprintf("user%d", i)) })
		}
		time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond)
		h.signal(syscall.SIGKILL)
		cancel()
		users.Wait()
		h.up()
		h.checkTruth(t)
		if now := h.machines()[id]; now != vm {
			t.Fatalf("keeper's VM is process %d, was %d\n%s", now, vm, h.log())
		}
	}
	n := h.counted("keeper")
	t.Logf("%d kills in %v; of %d lines that a program wrote meanwhile none is missing", kills, time.Since(begin), n)
	h.waitCount("keeper", n+3)
	list, err := h.client().List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if _, err := h.client().Delete(t.Context(), i.ID); err != nil {
			t.Errorf("delete %s: %v", i.Handle, err)
		}
	}
	if left := h.machines(); len(left) > 0 {
		t.Errorf("VMs left: %v", left)
	}
}

// use does what a user does, until ctx or the daemon ends. Errors are to be expected.
func (h *host) use(ctx context.Context, handle string) {
	c := h.client()
	never := int64(0)
	for ctx.Err() == nil {
		_, _, err := c.Create(ctx, api.CreateRequest{Handle: handle, Command: []string{"sleep", "600"}, PauseAfterS: &never})
		err = errors.Join(err, failed(c.Start(ctx, handle)), failed(c.Pause(ctx, handle)))
		if attach, execErr := c.Exec(ctx, handle, api.ExecRequest{Command: []string{"true"}}); execErr == nil {
			_, execErr = attach.Stream(ctx, client.Streams{})
			err = errors.Join(err, execErr)
		}
		if errors.Join(err, failed(c.Delete(ctx, handle))) != nil {
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

func failed(_ api.Outcome, err error) error { return err }

// checkTruth compares the daemon's list with the processes and folders there are.
func (h *host) checkTruth(t *testing.T) {
	t.Helper()
	var problem string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if problem = h.untruth(); problem == "" {
			return
		}
	}
	t.Fatalf("%s\n%s", problem, h.log())
}

func (h *host) untruth() string {
	list, err := h.client().List(h.t.Context(), "")
	if err != nil {
		return err.Error()
	}
	vms, folders := h.machines(), h.instances()
	for _, i := range list {
		_, runs := vms[i.ID]
		if wants := i.State == api.StateRunning || i.State == api.StatePaused; wants != runs {
			return fmt.Sprintf("%s is %s, but has a VM: %v", i.Handle, i.State, runs)
		}
		delete(vms, i.ID)
		folders = slices.DeleteFunc(folders, func(f string) bool { return f == i.ID })
	}
	if len(vms) > 0 || len(folders) > 0 {
		return fmt.Sprintf("without an instance: VMs %v, folders %v", vms, folders)
	}
	return ""
}
