//go:build integration

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/xfeldman/aegisvm/api"
)

// ok runs a command of the CLI that must end with status 0, and returns its stdout.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	r := h.try(args...)
	if r.status != 0 {
		h.t.Fatalf("aegis %q: status %d\n%s%s", args, r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// eventually waits until a condition that another process brings about holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

func (h *host) info(ref string) (i api.InstanceInfo) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.ok("instance", "info", "--json", ref)), &i); err != nil {
		h.t.Fatal(err)
	}
	return i
}

// TestInstance follows one instance through its life.
func TestInstance(t *testing.T) {
	h := newHost(t)
	out := h.ok("instance", "start", "--name", "web", "--pause-after", "0", "--env", "WHO=web", "--",
		"sh", "-c", `echo out $WHO; echo err >&2; printf 'not \377 text\n'; exec sleep 1000`)
	if !regexp.MustCompile(`^Instance started: inst-[0-9a-f]+\nHandle: web\n$`).MatchString(out) {
		t.Errorf("start: %q", out)
	}
	eventually(t, "the program's lines are in the log", func() bool { return strings.Contains(h.ok("logs", "web"), "text") })
	if r := h.try("logs", "web"); r.stdout != "out web\nnot \xff text\n" || r.stderr != "err\n" {
		t.Errorf("logs: %q, %q", r.stdout, r.stderr)
	}
	t.Run("list and info", h.with(testList))
	t.Run("exec", h.with(testExecStatuses))
	t.Run("exec input", h.with(testExecInput))
	t.Run("exec terminal", h.with(testExecTerminal))
	t.Run("exec in parallel", h.with(testExecParallel))
	t.Run("exec client goes", h.with(testExecClientGoes))
	t.Run("shell", h.with(testShell))
	t.Run("pause", h.with(testPause))
	t.Run("pause meets exec", h.with(testPauseMeetsExec))
	t.Run("clock", h.with(testClock))
	t.Run("clock of the host", h.with(testHostClock))
	t.Run("changes", h.with(testChanges))
}

// with gives a part of a test its own T on the same host.
func (h *host) with(test func(*testing.T, *host)) func(*testing.T) {
	return func(t *testing.T) {
		part := *h
		part.t = t
		test(t, &part)
	}
}

func testList(t *testing.T, h *host) {
	var list []api.Instance
	if err := json.Unmarshal([]byte(h.ok("instance", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Handle != "web" || list[0].State != api.StateRunning || !list[0].Enabled {
		t.Errorf("list = %+v", list)
	}
	if r := h.try("instance", "list", "--stopped"); r.stdout != "" || !strings.Contains(r.stderr, "no instances") {
		t.Errorf("list --stopped: %+v", r)
	}
	if i := h.info("web"); i.MemoryMB != 512 || i.MemoryUsed < mb || i.DiskUsed == 0 || i.PauseAfter != 0 || i.ID != list[0].ID {
		t.Errorf("info = %+v", i)
	}
}

func testExecStatuses(t *testing.T, h *host) {
	for _, c := range []struct {
		name   string
		args   []string
		status int
		stdout string
	}{
		{"own", []string{"web", "--", "sh", "-c", "exit 7"}, 7, ""},
		{"signal", []string{"web", "--", "sh", "-c", "kill -KILL $$"}, 137, ""},
		{"not found", []string{"web", "--", "no-such-command"}, 127, ""},
		{"not executable", []string{"web", "--", "/etc/passwd"}, 126, ""},
		{"no such instance", []string{"nobody", "--", "true"}, 125, ""},
		{"environment", []string{"--env", "A=b c", "web", "--", "sh", "-c", `echo "$WHO $A"`}, 0, "web b c\n"},
		{"folder and user", []string{"--workdir", "/usr", "--user", "nobody", "web", "--", "sh", "-c", "pwd; id -un"}, 0, "/usr\nnobody\n"},
		{"no input", []string{"web", "--", "cat"}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := h.try(append([]string{"exec"}, c.args...)...)
			if r.status != c.status || r.stdout != c.stdout {
				t.Errorf("status %d, stdout %q, stderr %q; want %d, %q", r.status, r.stdout, r.stderr, c.status, c.stdout)
			}
		})
	}
}

func testExecInput(t *testing.T, h *host) {
	in := make([]byte, 4*mb)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(in) // never fails
	cmd := h.aegis("exec", "-i", "web", "--", "cat")
	cmd.Stdin = bytes.NewReader(in)
	if r := finish(t, cmd); r.status != 0 || r.stdout != string(in) {
		t.Errorf("status %d, %d bytes of %d came back exactly as they were: %v", r.status, len(r.stdout), len(in), r.stdout == string(in))
	}
}

func testExecTerminal(t *testing.T, h *host) {
	x := openTerminal(t, h.aegis("exec", "-it", "web", "--", "bash", "--norc"), &pty.Winsize{Cols: 91, Rows: 33})
	// bash loses what is typed ahead while it sets the terminal: wait for its prompts.
	const prompt = "your wish> "
	x.typed("PS1=your\\ wish\\>\\ ; stty -echo\r")
	x.expect(prompt)
	x.typed("stty size\r")
	x.expect("33 91")
	x.expect(prompt)
	if err := pty.Setsize(x.tty, &pty.Winsize{Cols: 120, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	x.typed("until [ \"$(stty size)\" = '40 120' ]; do sleep .1; done; echo resized\r")
	x.expect("resized")
	x.expect(prompt)
	x.typed("sh -c 'echo sleeping; exec sleep 1000'\r")
	x.expect("sleeping")
	x.typed("\x03")
	x.expect(prompt)
	x.typed("echo status $?\r")
	x.expect("status 130")
	x.expect(prompt)
	x.typed("exit 5\r")
	if status := x.wait(); status != 5 {
		t.Errorf("status = %d", status)
	}
}

func testExecParallel(t *testing.T, h *host) {
	var wg sync.WaitGroup
	total, begin := stress(20, 50), time.Now()
	for i := range total {
		wg.Go(func() {
			want := strconv.Itoa(i)
			if r := finish(t, h.aegis("exec", "web", "--", "sh", "-c", "echo "+want+"; exit "+want)); r.status != i || r.stdout != want+"\n" {
				t.Errorf("%d: %+v", i, r)
			}
		})
	}
	wg.Wait()
	t.Logf("%d execs at the same time in %v", total, time.Since(begin))
	if holds := h.info("web").Holds; len(holds) > 0 {
		t.Errorf("still held by %+v", holds)
	}
}

func testExecClientGoes(t *testing.T, h *host) {
	cmd := h.aegis("exec", "web", "--", "sh", "-c", "sleep 4321 & echo ready; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	// Brackets keep pgrep from finding the shell that ran it.
	if r := h.try("exec", "web", "--", "pgrep", "-f", "sleep 432[1]"); r.status != 0 {
		t.Fatalf("pgrep does not find what runs: %+v", r)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	eventually(t, "nothing of the command is left", func() bool {
		return h.try("exec", "web", "--", "pgrep", "-f", "sleep 432[1]").status == 1
	})
	if holds := h.info("web").Holds; len(holds) > 0 {
		t.Errorf("still held by %+v", holds)
	}
}

func testShell(t *testing.T, h *host) {
	cmd := h.aegis("shell", "web")
	cmd.Stdin = strings.NewReader("echo $BASH\nexit 3\n")
	if r := finish(t, cmd); r.status != 3 || !strings.Contains(r.stdout, "/bash\n") {
		t.Errorf("%+v", r)
	}
}

func testChanges(t *testing.T, h *host) {
	h.ok("exec", "web", "--", "sh", "-c", "echo kept > /root/kept")
	for _, step := range []struct{ command, says, state string }{
		{"restart", "restarted", api.StateRunning},
		{"stop", "stopped", api.StateStopped},
		{"resume", "resumed", api.StateRunning},
		{"disable", "disabled", api.StateStopped},
	} {
		if out := h.ok("instance", step.command, "web"); !strings.HasPrefix(out, "Instance "+step.says+": inst-") {
			t.Errorf("%s: %q", step.command, out)
		}
		if i := h.info("web"); i.State != step.state || i.Enabled == (step.command == "disable") {
			t.Errorf("after %s: state %s, enabled %v", step.command, i.State, i.Enabled)
		}
	}
	if r := h.try("exec", "web", "--", "true"); r.status != 125 || !strings.Contains(r.stderr, "disabled") {
		t.Errorf("exec in a disabled instance: %+v", r)
	}
	if out := h.ok("instance", "start", "--name", "web"); !strings.HasPrefix(out, "Instance restarted: inst-") {
		t.Errorf("start of a stored instance: %q", out)
	}
	if out := h.ok("exec", "web", "--", "cat", "/root/kept"); out != "kept\n" {
		t.Errorf("the disk has %q", out)
	}
	h.ok("instance", "delete", "web")
	if r := h.try("instance", "info", "web"); r.status != 1 {
		t.Errorf("info of a deleted instance: %+v", r)
	}
	if left := h.instances(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// follow reads an instance's log as it grows, up to a line that begins with last.
func (h *host) follow(ref, last string) <-chan string {
	h.t.Helper()
	cmd := h.aegis("logs", "-f", ref)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	all := make(chan string, 1)
	go func() {
		var text strings.Builder
		for in := bufio.NewScanner(out); in.Scan(); {
			text.WriteString(in.Text() + "\n")
			if strings.HasPrefix(in.Text(), last) {
				break
			}
		}
		_ = cmd.Process.Kill() // it would go on
		_ = cmd.Wait()         // killed
		all <- text.String()
	}()
	return all
}

// TestProgramEnds has a program that writes as fast as it can, with a follower that does
// not read and one that does, and ends.
func TestProgramEnds(t *testing.T) {
	h := newHost(t)
	lines := stress(100_000, 1_000_000)
	h.ok("instance", "start", "--name", "job", "--", "sh", "-c", fmt.Sprintf("seq %d; exit 3", lines))
	stuck := h.aegis("logs", "-f", "job")
	if _, err := stuck.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	followed := h.follow("job", "[system] process exited")
	eventually(t, "the program has ended", func() bool { return h.info("job").State == api.StateStopped })
	if i := h.info("job"); !i.Enabled || i.StoppedAt == nil {
		t.Errorf("enabled %v, stopped at %v", i.Enabled, i.StoppedAt)
	}
	wrote, begin := time.Since(begin), time.Now()
	out := h.ok("logs", "job")
	t.Logf("%d lines, %d MB, written in %v, read in %v", lines, len(out)>>20, wrote, time.Since(begin))
	var want strings.Builder
	for i := range lines {
		fmt.Fprintln(&want, i+1)
	}
	if got, tail, _ := strings.Cut(out, "[system] "); got != want.String() || tail != "process exited (code=3)\n" {
		t.Errorf("%d bytes of %d, then %q", len(got), want.Len(), tail)
	}
	if got := <-followed; got != out {
		t.Errorf("a follower got %d bytes of %d", len(got), len(out))
	}
	if r := finish(t, h.command(t.Context(), "logs", "--tail", "2", "job")); r.stdout != fmt.Sprintf("%d\n[system] process exited (code=3)\n", lines) {
		t.Errorf("logs --tail 2: %q", r.stdout)
	}
	if err := stuck.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = stuck.Wait() // killed

	if r := h.try("instance", "start", "--name", "bad", "--", "no-such-command"); r.status != 127 || !strings.Contains(r.stderr, "bad did not start") {
		t.Errorf("a command that does not exist: %+v", r)
	}
	if i := h.info("bad"); i.State != api.StateStopped || !strings.Contains(i.Why, "no-such-command") {
		t.Errorf("state %s, because %q", i.State, i.Why)
	}
	if r := h.try("instance", "prune"); r.stdout != "" || !strings.Contains(r.stderr, "nothing to prune") {
		t.Errorf("prune: %+v", r)
	}
	if ids := strings.Fields(h.ok("instance", "prune", "--stopped-older-than", "0")); len(ids) != 2 || len(h.instances()) > 0 {
		t.Errorf("pruned %v, left %v", ids, h.instances())
	}
}
