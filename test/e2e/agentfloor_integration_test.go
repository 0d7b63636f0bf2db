//go:build integration

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// least starts an instance that runs the least that an agent can be: testdata/least.
func (a *agents) least() *agents {
	a.t.Helper()
	dir := a.t.TempDir()
	cmd := exec.CommandContext(a.t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, "least"), "./testdata/least")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("build the least agent: %v\n%s", err, out)
	}
	rights := filepath.Join(dir, "rights.json")
	if err := os.WriteFile(rights, []byte(`{"llm": ["ollama"]}`), 0o600); err != nil {
		a.t.Fatal(err)
	}
	out := *a
	out.name = "least"
	a.ok("instance", "start", "--name", out.name, "--workspace", dir, "--capabilities", rights, "--pause-after", "0", "--stop-after", "0", "--", "/workspace/least")
	out.answer(out.say("quick first"))
	return &out
}

// figure logs, for one way to sleep, how long a wake and a message to the first word take,
// and what the VM computes in that time. Where nothing can be waited for but that, the time
// is the machine's: after a hibernation an emulator translates all code anew.
func (a *agents) figure(sleep ...string) {
	a.t.Helper()
	var wakes, firsts, computes []time.Duration
	for i := range stress(3, 10) {
		a.ok(append(sleep, a.name)...)
		begin := time.Now()
		if _, err := a.client().Resume(a.t.Context(), a.name); err != nil {
			a.t.Fatal(err)
		}
		wakes = append(wakes, time.Since(begin))
		woken := a.computed()
		a.ok(append(sleep, a.name)...)
		before := a.computed()
		first, computed := a.first(fmt.Sprintf("quick %s %d", sleep[len(sleep)-1], i))
		if before == 0 { // another VM, which has computed for the wake too
			before = woken
		}
		firsts, computes = append(firsts, first), append(computes, computed-before)
	}
	for _, all := range [][]time.Duration{wakes, firsts, computes} {
		slices.Sort(all)
	}
	mid := len(wakes) / 2
	a.t.Logf("%s after %s: wake %v, message to first delta %v: %v over the wake, in which the VM computes for %v (medians of %d)", a.name, sleep[len(sleep)-1],
		wakes[mid], firsts[mid], firsts[mid]-wakes[mid], computes[mid], len(wakes))
}

// computed returns the time that the VM's process has had of the CPUs, in steps of 10 ms; 0
// if there is none.
func (a *agents) computed() time.Duration {
	a.t.Helper()
	pid := a.machines()[a.info(a.name).ID]
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest) // from the state on: utime and stime are the 12th and 13th
	if len(fields) < 13 {
		return 0
	}
	ticks := 0
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			a.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// first returns the time from a message until the first word of its answer is here, and
// what the VM has computed until then.
func (a *agents) first(text string) (took, computed time.Duration) {
	a.t.Helper()
	begin := time.Now()
	id := a.say(text)
	page, err := a.client().TetherPoll(a.t.Context(), a.name, client.TetherQuery{
		Types: []api.FrameType{api.FrameDelta}, ReplyToID: id, Wait: 30 * time.Second,
	})
	took, computed = time.Since(begin), a.computed()
	if err != nil || len(page.Frames) == 0 {
		a.t.Fatalf("no delta of the answer to %s: %v", text, err)
	}
	a.answer(id)
	a.t.Logf("%s, %s: the model was asked after %v, the first delta came after %v", a.name, text, a.mind.answered(text).Sub(begin), took)
	return took, computed
}
