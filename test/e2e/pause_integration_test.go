//go:build integration

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// testPause pauses and wakes, by request and by an exec.
func testPause(t *testing.T, h *host) {
	if out := h.ok("instance", "pause", "web"); !strings.HasPrefix(out, "Instance paused: inst-") {
		t.Errorf("pause: %q", out)
	}
	if i := h.info("web"); i.State != api.StatePaused {
		t.Errorf("state = %s", i.State)
	}
	if out := h.ok("instance", "resume", "web"); !strings.HasPrefix(out, "Instance resumed: inst-") {
		t.Errorf("resume: %q", out)
	}
	h.ok("instance", "pause", "web")
	if out := h.ok("exec", "web", "--", "echo", "awake"); out != "awake\n" {
		t.Errorf("exec on a paused instance: %q", out)
	}
}

// testPauseMeetsExec pauses again and again while commands begin: none may be frozen half
// begun, which would end the guest's PID 1 with it.
func testPauseMeetsExec(t *testing.T, h *host) {
	ctx, cancel := context.WithCancel(t.Context())
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() {
			for ctx.Err() == nil {
				r := h.try("exec", "web", "--", "echo", "well") //nolint:contextcheck // it may end
				if r.status != 0 || r.stdout != "well\n" {
					t.Errorf("exec: %+v", r)
					return
				}
			}
		})
	}
	for range stress(60, 600) {
		time.Sleep(20 * time.Millisecond) // commands come in between
		if _, err := h.client().Pause(t.Context(), "web"); err != nil && fault.KindOf(err) != fault.Conflict {
			t.Errorf("pause: %v", err)
			break
		}
	}
	cancel()
	h.ok("instance", "resume", "web") // a command in a paused instance waits
	users.Wait()
}

// clock is a process in a guest that tells the time when it is asked.
type clock struct {
	t     *testing.T
	ask   *io.PipeWriter
	out   *bufio.Reader
	ended chan error
	asked int
}

func (h *host) clock(ref string) *clock {
	h.t.Helper()
	attach, err := h.client().Exec(h.t.Context(), ref, api.ExecRequest{
		Command: []string{"python3", "-uc", "import sys, time\nfor line in sys.stdin: print(line.strip(), time.time())"}, Stdin: true,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	stdin, ask := io.Pipe()
	out, stdout := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := attach.Stream(h.t.Context(), client.Streams{Stdin: stdin, Stdout: stdout})
		_ = stdout.CloseWithError(err) // never fails
		ended <- err
	}()
	return &clock{t: h.t, ask: ask, out: bufio.NewReader(out), ended: ended}
}

// close ends the process in good order.
func (c *clock) close() {
	c.t.Helper()
	_ = c.ask.Close() // never fails
	if err := <-c.ended; err != nil {
		c.t.Error(err)
	}
}

// offset returns by how much the guest's clock is ahead of the host's, and how far that may
// be wrong: half of the quickest of some questions.
func (c *clock) offset() (ahead, within time.Duration) {
	c.t.Helper()
	for i := range 5 {
		before := time.Now()
		c.asked++
		if _, err := fmt.Fprintln(c.ask, c.asked); err != nil {
			c.t.Fatal(err)
		}
		line, err := c.out.ReadString('\n')
		if err != nil {
			c.t.Fatal(err)
		}
		took := time.Since(before)
		answer, stamp, _ := strings.Cut(strings.TrimSpace(line), " ")
		s, err := strconv.ParseFloat(stamp, 64)
		if err != nil || answer != strconv.Itoa(c.asked) {
			c.t.Fatalf("answer %q to question %d: %v", line, c.asked, err)
		}
		if i == 0 || took/2 < within {
			guest := time.Unix(0, int64(s*1e9))
			ahead, within = guest.Sub(before.Round(0).Add(took/2)), took/2
		}
	}
	return ahead, within
}

// testClock compares the clocks after the guest's stood still for a while, as a process
// sees it that has lived through that.
func testClock(t *testing.T, h *host) {
	const most = 100 * time.Millisecond
	c := h.clock("web")
	defer c.close()
	for _, pause := range stress([]time.Duration{0, 3 * time.Second}, []time.Duration{0, time.Second, 10 * time.Second, time.Minute, 5 * time.Minute}) {
		h.ok("instance", "pause", "web")
		time.Sleep(pause)
		h.ok("instance", "resume", "web")
		ahead, within := c.offset()
		t.Logf("after a pause of %v the guest is ahead by %v, give or take %v", pause, ahead, within)
		if (ahead-within).Abs() > most && (ahead+within).Abs() > most {
			t.Errorf("after a pause of %v the guest is ahead by %v, give or take %v", pause, ahead, within)
		}
	}
}

// testHostClock lets a clock jump, that of a VM as no other may be touched here, and looks
// whether the daemon's watch over the host's clock would tell.
func testHostClock(t *testing.T, h *host) {
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", filepath.Join(dir, "hostclock.test"), "github.com/xfeldman/aegisvm/internal/hostclock")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h.ok("cp", filepath.Join(dir, "hostclock.test"), "web:/tmp/")
	if out := h.ok("exec", "--env", "AEGIS_TEST_SET_CLOCK=1", "web", "--", "/tmp/hostclock.test", "-test.v", "-test.run", "TestJump"); !strings.Contains(out, "--- PASS: TestJump") {
		t.Error(out)
	}
}

// TestIdle has an instance that is paused when nobody holds it: a command that says
// nothing and uses no CPU does.
func TestIdle(t *testing.T) {
	h := newHost(t)
	h.ok("instance", "start", "--name", "idle", "--pause-after", "1s", "--", "sleep", "100000")
	paused := func() bool { return h.info("idle").State == api.StatePaused }
	eventually(t, "it is paused", paused)
	silent := h.background("exec", "idle", "--", "sh", "-c", "echo ready; sleep 5; echo well")
	silent.ready()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if i := h.info("idle"); i.State != api.StateRunning || len(i.Holds) != 1 {
			t.Fatalf("it is %s, held by %v", i.State, i.Holds)
		}
	}
	if r := silent.wait(); r.status != 0 || r.stdout != "well\n" {
		t.Errorf("%+v", r)
	}
	eventually(t, "it is paused again", paused)
	if used := h.cpu(h.machines()[h.info("idle").ID], 2*time.Second); used > 100*time.Millisecond {
		t.Errorf("a paused VM used %v of CPU in 2 s", used)
	}
	h.ok("instance", "delete", "idle")
}
