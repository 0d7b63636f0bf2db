//go:build integration

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// TestTetherEcho talks to the agent of docs/TETHER.md, as it stands there: by the CLI, in
// its sleep, and over the death of a daemon. Its answers come once.
func TestTetherEcho(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "TETHER.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(doc), "```python file=agent.py\n")
	code, _, found := strings.Cut(code, "```")
	if !found {
		t.Fatal("there is no agent in docs/TETHER.md")
	}
	h := newHost(t)
	h.ok("instance", "start", "--name", "echo", "--pause-after", "2s", "--stop-after", "0", "--", "python3", "-uc", code)
	if got := h.ok("tether", "send", "echo", "hello", "--wait"); got != "you said hello\n" {
		t.Errorf("it says %q", got)
	}
	// It has answered: nothing keeps it awake.
	h.await("echo", api.StatePaused)
	chat := h.aegis("tether", "chat", "echo")
	chat.Stdin = strings.NewReader("one\ntwo\n")
	if r := finish(t, chat); r.status != 0 || r.stdout != "you said one\nyou said two\n" || r.stderr != "" {
		t.Errorf("a chat with one that sleeps: %+v", r)
	}
	const n = 40
	for i := range n {
		f := message("many", strconv.Itoa(i))
		f.MsgID = fmt.Sprintf("many-%d", i)
		if _, err := h.client().TetherSend(t.Context(), "echo", f); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			h.signal(syscall.SIGKILL)
			h.up()
		}
	}
	next := int64(0)
	for i := 0; i < n; {
		page, err := h.client().TetherPoll(t.Context(), "echo", client.TetherQuery{
			Session: api.Session{ID: "many"}, Types: []api.FrameType{api.FrameDone}, After: next, Wait: 30 * time.Second,
		})
		if err != nil || page.TimedOut {
			t.Fatalf("answer %d: %v\n%s", i, err, h.log())
		}
		for _, f := range page.Frames {
			if messageText(f) != fmt.Sprintf("you said %d", i) {
				t.Fatalf("answer %d is %q", i, messageText(f))
			}
			i++
		}
		next = page.NextSeq
	}
	h.ok("instance", "delete", "echo")
}

// await waits until an instance is in a state.
func (h *host) await(ref, state string) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		info, err := h.client().Info(h.t.Context(), ref)
		if err != nil {
			h.t.Fatal(err)
		}
		if info.State == state {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s is %s, held by %+v, busy %q", ref, info.State, info.Holds, info.Busy)
		}
	}
}
