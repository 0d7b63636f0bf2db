package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
)

// TestMain is the gateway itself where a test has started it as a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("AEGIS_GATEWAY_TEST") != "" {
		main()
	}
	os.Exit(m.Run())
}

const (
	me   = 100
	mine = "100"
	// patience is how long something may take on a busy machine.
	patience = time.Minute
)

// world is Telegram and a daemon, and gateways as processes between them.
type world struct {
	t      *testing.T
	tg     *telegramtest.Server
	d      *gatewaytest.Daemon
	web    *httptest.Server
	kit    string
	socket string
	ctx    context.Context //nolint:containedctx // of the test
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	w := &world{t: t, tg: telegramtest.New(), d: gatewaytest.New(), kit: filepath.Join(dir, "kits", "my-agent"), socket: filepath.Join(dir, "s"), ctx: ctx}
	stop, err := w.d.Serve(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	w.web = httptest.NewServer(w.tg)
	t.Cleanup(func() {
		cancel()
		stop()
		w.web.CloseClientConnections()
		w.web.Close()
		_ = os.RemoveAll(dir)
	})
	return w
}

// configure writes gateway.json.
func (w *world) configure(section map[string]any) {
	w.t.Helper()
	section = maps.Clone(section)
	section["api_base"] = w.web.URL
	b, err := json.Marshal(map[string]any{"telegram": section})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(w.kit, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.kit, "gateway.json"), b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// process is a gateway that runs.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	secrets *os.File // the daemon's end
	log     logBuffer
	ended   chan struct{} // closed when err is how it ended
	err     error
	once    sync.Once
}

func (w *world) start() *process {
	w.t.Helper()
	r, daemon, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{t: w.t, secrets: daemon, ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = []string{"AEGIS_GATEWAY_TEST=1", "AEGIS_INSTANCE=my-agent", "AEGIS_SOCKET=" + w.socket, "AEGIS_KIT_CONFIG=" + filepath.Join(w.kit, "gateway.json"), "AEGIS_INSTANCE_ID=inst-1", "AEGIS_SECRETS_FD=3", "HOME=" + w.kit}
	p.cmd.ExtraFiles = []*os.File{r}
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	_ = r.Close()
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		p.kill()
		if w.t.Failed() {
			w.t.Logf("%s", p.log.String())
		}
	})
	return p
}

// logBuffer is what a process logs, also while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tell tells the gateway the token.
func (p *process) tell() *process {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.secrets, "{\"secrets\":{\"TELEGRAM_BOT_TOKEN\":%q}}\n", telegramtest.Token); err != nil {
		p.t.Fatal(err)
	}
	return p
}

// wait returns how the process ended.
func (p *process) wait() error {
	<-p.ended
	return p.err
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.wait()
		_ = p.secrets.Close()
	})
}

// until waits for something that Telegram or the daemon sees.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	if err := w.tg.Wait(w.ctx, is); err != nil {
		w.t.Fatalf("%s: %v; shown: %.80q", what, err, w.shown())
	}
}

func (w *world) shown() []string {
	out := []string{}
	for _, m := range w.tg.FromBot(me) {
		out = append(out, m.Text)
	}
	return out
}

// ask writes to the agent, and returns the id of the message when the agent has it.
func (w *world) ask(text string) string {
	w.t.Helper()
	n := len(w.d.Received())
	w.tg.Write(me, text)
	if err := w.d.Wait(w.ctx, func() bool { return len(w.d.Received()) > n }); err != nil {
		w.t.Fatalf("the agent does not get %q: %v", text, err)
	}
	return w.d.Received()[n].MsgID
}

var byName = map[string]any{"bot_token_secret": "TELEGRAM_BOT_TOKEN", "allowed_chats": []int{me}}

func TestKilledInTheMiddleOfAnAnswer(t *testing.T) {
	t.Parallel()
	for name, during := range map[string]bool{"the answer is done while it is dead": true, "the answer goes on": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.configure(byName)
			p := w.start().tell()
			reply := w.ask("tell me")
			whole := ""
			say := func(words int) {
				for range words {
					whole += fmt.Sprintf("word%d ", len(whole))
					w.d.Delta("telegram", mine, reply, whole[strings.LastIndex(whole[:len(whole)-1], " ")+1:])
				}
			}
			say(50)
			w.until("a first message", func() bool { return len(w.shown()) == 1 })
			say(50)
			w.until("an edit", func() bool { return w.tg.FromBot(me)[0].Edits > 0 })
			p.kill()
			say(700)
			if during {
				w.d.Done("telegram", mine, reply, whole)
			}
			w.start().tell()
			if !during {
				if err := w.d.Wait(w.ctx, func() bool { return w.d.Reading() > 0 }); err != nil {
					t.Fatal(err)
				}
				say(20)
				w.d.Done("telegram", mine, reply, whole)
			}
			w.until("the whole answer", func() bool {
				return strings.Join(strings.Fields(strings.Join(w.shown(), " ")), " ") == strings.TrimSpace(whole)
			})
			if err := w.d.Wait(w.ctx, func() bool { return w.d.Mark("telegram") == w.d.Last() }); err != nil {
				t.Fatal(err)
			}
			if n := len(w.shown()); n != 2 || len(w.d.Received()) != 1 {
				t.Errorf("%d messages, the agent has %d", n, len(w.d.Received()))
			}
		})
	}
}

// TestKilledAgainAndAgain kills the gateway at the moment of each call of a conversation,
// before the answer to it can have been kept.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(byName)
	text := strings.Repeat("All work and no play. ", 250)
	p := w.start().tell()
	reply := w.ask("tell me")
	w.d.Done("telegram", mine, reply, text)
	for range 6 {
		n := len(w.tg.Calls("sendMessage")) + len(w.tg.Calls("editMessageText"))
		done := func() bool { return w.d.Mark("telegram") == w.d.Last() }
		w.until("another call", func() bool {
			return done() || len(w.tg.Calls("sendMessage"))+len(w.tg.Calls("editMessageText")) > n
		})
		p.kill()
		p = w.start().tell()
	}
	if err := w.d.Wait(w.ctx, func() bool { return w.d.Mark("telegram") == w.d.Last() }); err != nil {
		t.Fatalf("%v; %d messages", err, len(w.shown()))
	}
	if got := strings.Join(w.shown(), " "); got != strings.TrimSpace(text) || len(w.shown()) != 2 || len(w.d.Received()) != 1 {
		t.Errorf("%d messages: %.60q", len(w.shown()), w.shown())
	}
}

func TestEndsWithItsDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(byName)
	p := w.start().tell()
	w.ask("hello")
	_ = p.secrets.Close()
	select {
	case <-p.ended:
		if err := p.wait(); err != nil || !strings.Contains(p.log.String(), "the daemon has ended") {
			t.Errorf("%v:\n%s", p.wait(), p.log.String())
		}
	case <-w.ctx.Done():
		t.Error("it goes on without a daemon")
	}
}

func TestEndsOnASignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(byName)
	p := w.start().tell()
	w.ask("hello")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
		if err := p.wait(); err != nil {
			t.Error(err)
		}
	case <-w.ctx.Done():
		t.Error("it does not end")
	}
}

// TestFiveMinutes is the guide: a gateway that runs, then a file, a secret, and a chat.
func TestFiveMinutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.start()
	w.configure(map[string]any{"bot_token_secret": "TELEGRAM_BOT_TOKEN"})
	p.tell()
	w.tg.Write(me, "is anybody there?")
	w.until("a stranger's message is passed over", func() bool { return w.tg.Unacknowledged() == 0 })
	w.configure(byName)
	w.until("the channel begins again", func() bool { return len(w.tg.Calls("getMe")) == 2 })
	reply := w.ask("hello")
	w.d.Done("telegram", mine, reply, "hi")
	w.until("an answer", func() bool { return slices.Equal(w.shown(), []string{"hi"}) })
	w.tg.Write(me, "/exec id")
	w.until("no command", func() bool { return len(w.shown()) == 2 })
	if len(w.d.Execs()) != 0 {
		t.Error("a command runs that is not allowed")
	}
	w.configure(map[string]any{"bot_token_secret": "TELEGRAM_BOT_TOKEN", "allowed_chats": []string{"*"}, "allow_exec": true})
	w.until("the channel begins again", func() bool { return len(w.tg.Calls("getMe")) == 3 })
	w.tg.Write(me, "/exec id; exit 3")
	w.until("a command's output", func() bool {
		s := w.shown()
		return strings.Contains(s[len(s)-1], "ran id; exit 3\n[exit status 3]")
	})
	if len(w.d.Received()) != 1 || strings.Contains(p.log.String(), telegramtest.Token) {
		t.Errorf("the agent has %d messages; the log:\n%s", len(w.d.Received()), p.log.String())
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args   []string
		env    string
		status int
		says   string
	}{
		{[]string{"--version"}, "", 0, "aegis-gateway"},
		{[]string{"--help"}, "", 0, "AEGIS_SECRETS_FD"},
		{[]string{"--telegram"}, "", 2, "no arguments"},
		{nil, "", 1, "AEGIS_INSTANCE"},
		{nil, "AEGIS_INSTANCE=../../x", 1, "AEGIS_INSTANCE"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], c.args...)
		cmd.Env = []string{"AEGIS_GATEWAY_TEST=1", "HOME=" + t.TempDir(), c.env}
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%q with %q: status %d, %v: %s", c.args, c.env, got, err, out)
		}
	}
}
