package telegram

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
	"github.com/xfeldman/aegisvm/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// me is the chat of most tests, mine the name of its session.
const (
	me   = 100
	mine = "100"
)

// world is Telegram, a daemon with an agent, and the channel between them, in a bubble
// with a clock of its own.
type world struct {
	t   *testing.T
	tg  *telegramtest.Server
	d   *gatewaytest.Daemon
	dir string
	log *logBuffer

	allowed []chatID
	stop    func()
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// bubble runs a test in a world whose channel runs.
func bubble(t *testing.T, test func(w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, tg: telegramtest.New(), d: gatewaytest.New(), dir: dir, log: &logBuffer{}, allowed: []chatID{me, -200}}
		w.begin()
		test(w)
		w.stop()
		if t.Failed() {
			t.Log(w.log.b.String())
		}
	})
}

// begin starts the channel, as a gateway does that has no memory.
func (w *world) begin() {
	ch := newChannel(slog.New(slog.NewTextHandler(w.log, nil)), secret.New(telegramtest.Token), "http://telegram.test", telegramtest.Client{Server: w.tg})
	for _, id := range w.allowed {
		ch.allowed[id] = true
	}
	w.start(ch)
}

func (w *world) start(ch *channel) {
	ctx, cancel := context.WithCancel(context.Background())
	line := gateway.NewLine(ch.log, w.d, "agent", "telegram", w.dir)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		line.Run(ctx, ch)
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// reply returns the id of the last message to the agent.
func (w *world) reply() string {
	w.t.Helper()
	got := w.d.Received()
	if len(got) == 0 {
		w.t.Fatal("the agent has got nothing")
	}
	return got[len(got)-1].MsgID
}

// shown returns the texts of what the bot has written to me.
func (w *world) shown() []string {
	out := []string{}
	for _, m := range w.tg.FromBot(me) {
		out = append(out, m.Text)
	}
	return out
}

// refused returns how many calls were too many.
func (w *world) refused() int {
	n := 0
	for _, c := range w.tg.Calls("") {
		if c.Status == 429 {
			n++
		}
	}
	return n
}

// ask writes to the agent, and waits until it has that.
func (w *world) ask(text string) string {
	w.t.Helper()
	w.tg.Write(me, text)
	w.pass(time.Second)
	return w.reply()
}
