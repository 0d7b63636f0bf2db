//go:build integration

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/gateway/webhook"
)

// testWebhook has a program talk to the agent, in the second channel.
func testWebhook(t *testing.T, b *bot) {
	answers := make(chan webhook.Out, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var out webhook.Out
		if err := json.NewDecoder(r.Body).Decode(&out); err != nil || r.Header.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("posted: %v, %v", err, r.Header)
		}
		answers <- out
	}))
	defer hook.Close()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	b.configure(fmt.Sprintf(`, "webhook": {"listen": %q, "token": "t0ken", "post_url": %q}`, at, hook.URL), strconv.Itoa(ours))
	eventually(t, "the message is taken", func() bool {
		body := strings.NewReader(`{"session": "ci", "id": "build-7", "text": "why did it fail?"}`)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/v1/messages", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t0ken")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false // it does not listen yet
		}
		_ = resp.Body.Close() // nothing is read
		return resp.StatusCode == http.StatusAccepted
	})
	select {
	case out := <-answers:
		if out.Session != "ci" || out.Text != "answer 1" || out.Error != "" {
			t.Errorf("answered: %+v", out)
		}
	case <-time.After(patience):
		t.Fatalf("no answer\n%s", b.ok("logs", b.name))
	}
	b.configure("", strconv.Itoa(ours))
	b.says(`msg="channel ends" channel=webhook`)
}

// testKilled kills each of those who bring an answer while it is written. It stands in the
// chat once, and whole.
func testKilled(t *testing.T, b *bot) {
	for i := range stress(1, 10) {
		b.killed(fmt.Sprintf("the gateway %d", i), func() {
			for _, pid := range b.gateways(b.name) {
				kill(t, pid)
			}
		})
		b.killed(fmt.Sprintf("the daemon %d", i), func() {
			b.signal(syscall.SIGKILL)
			b.up()
		})
		b.killed(fmt.Sprintf("the VM %d", i), func() { kill(t, b.vmm()) })
		eventually(t, "one gateway", func() bool { return len(b.gateways(b.name)) == 1 })
	}
}

// killed has a fault happen in the middle of an answer.
func (b *bot) killed(what string, fault func()) {
	b.t.Helper()
	b.ask(ours, "/new", "A new conversation.")
	n, begun := len(b.shown(ours)), time.Now()
	whole := counted("20 over " + what)
	b.tg.Write(ours, "count to 20 over "+what)
	b.until("some of the answer is there", func() bool {
		m := b.tg.FromBot(ours)
		return len(m) == n+1 && m[n].Edits > 0 && m[n].Text != whole
	})
	fault()
	b.answers(ours, n, whole)
	// What is behind it is behind all that could come again.
	b.ask(ours, "once?", "answer 2")
	if got := b.shown(ours)[n:]; len(got) != 2 {
		b.t.Errorf("after %s was killed: %q", what, got)
	}
	b.t.Logf("%s: %v", what, time.Since(begun))
}

// testDown stops everything in the middle of an answer, and has people write meanwhile.
func testDown(t *testing.T, b *bot) {
	b.ask(ours, "/new", "A new conversation.")
	before := b.shown(ours)
	n := len(before)
	whole := counted("20 over a day")
	b.tg.Write(ours, "count to 20 over a day")
	b.until("some of the answer is there", func() bool { m := b.tg.FromBot(ours); return len(m) == n+1 && m[n].Edits > 0 })
	b.ok("down")
	if left := b.processes(); len(left) > 0 {
		t.Errorf("left after down: %v", left)
	}
	b.up()
	b.answers(ours, n, whole)
	b.ok("down")
	b.tg.Write(ours, "are you awake?")
	b.up()
	b.answers(ours, n+1, "answer 2")
	for i, text := range before {
		if got := b.shown(ours)[i]; got != text {
			t.Errorf("message %d was %q, and is %q", i, text, got)
		}
	}
}

// testGone disables and deletes the instance.
func testGone(t *testing.T, b *bot) {
	if n := strings.Count(b.ok("logs", b.name), "is not set yet"); n != 1 {
		t.Errorf("the token was missing %d times: it was set when later gateways began", n)
	}
	b.ok("instance", "disable", b.name)
	if i, left := b.info(b.name), b.gateways(b.name); i.GatewayRunning || i.State != api.StateStopped || len(left) > 0 {
		t.Errorf("disabled it is %s, its gateway %v %v", i.State, i.GatewayRunning, left)
	}
	b.ok("instance", "delete", b.name)
	if m := b.machines(); len(m) > 0 {
		t.Errorf("VMs: %v", m)
	}
	if _, err := os.Stat(filepath.Join(b.home, "kits", b.name)); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
}
