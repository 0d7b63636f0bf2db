//go:build integration

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
	"github.com/xfeldman/aegisvm/internal/agent/modeltest"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
)

// The chats of the tests: two people's.
const (
	ours   = 123456789
	theirs = 987654321
)

// picture is one as far as anybody looks.
var picture = []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR of a picture")

// bot is an agent on Telegram: a Bot API and a model on this host, and an instance of the
// kit agent between them.
type bot struct {
	*host

	tg    *telegramtest.Server
	model *modeltest.Server
	name  string
	conf  string // gateway.json
	base  string // api_base
}

// newBot starts the Bot API, the model, and a daemon that knows it as Ollama.
func newBot(t *testing.T) *bot {
	t.Helper()
	b := &bot{tg: telegramtest.New(), model: modeltest.New(t, botSays), name: "my-agent"}
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+modeltest.Key) // a model server of the host asks for none
		b.model.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { model.CloseClientConnections(); model.Close() })
	web := httptest.NewServer(b.tg)
	t.Cleanup(func() { web.CloseClientConnections(); web.Close() })
	b.base = web.URL
	b.host = newHost(t, "AEGIS_LLM_OLLAMA="+model.URL)
	b.conf = filepath.Join(b.home, "kits", b.name, "gateway.json")
	return b
}

// part gives a part of a test its own T.
func (b *bot) part(test func(*testing.T, *bot)) func(*testing.T) {
	return func(t *testing.T) {
		own, h := *b, *b.host
		own.host, h.t = &h, t
		test(t, &own)
	}
}

// configure writes gateway.json with those who are allowed and with more sections, such as
// `, "webhook": {...}`.
func (b *bot) configure(more string, allowed ...string) {
	b.t.Helper()
	text := fmt.Sprintf(`{"telegram": {"bot_token_secret": "TELEGRAM_BOT_TOKEN", "allowed_chats": [%s], "api_base": %q}%s}`,
		strings.Join(allowed, ", "), b.base, more)
	write(b.t, b.conf, []byte(text), 0o600)
}

// reconfigure is configure, and waits until the bot begins anew.
func (b *bot) reconfigure(more string, allowed ...string) {
	b.t.Helper()
	n := len(b.tg.Calls("getMe"))
	b.configure(more, allowed...)
	b.until("the new configuration is in force", func() bool { return len(b.tg.Calls("getMe")) > n })
}

// until waits until something holds of what the Bot API has seen.
func (b *bot) until(what string, holds func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if b.tg.Wait(ctx, holds) != nil {
		b.t.Fatalf("still not so: %s\nthe chat: %q\n%s\n%s", what, b.shown(ours), b.try("logs", b.name).stdout, b.log())
	}
}

// shown is what the bot has written in a chat.
func (b *bot) shown(chat int64) (texts []string) {
	for _, m := range b.tg.FromBot(chat) {
		texts = append(texts, m.Text)
	}
	return texts
}

// ask writes in a chat, and waits for messages of the bot's that are these, and no others.
func (b *bot) ask(chat int64, text string, want ...string) {
	b.t.Helper()
	n := len(b.shown(chat))
	b.tg.Write(chat, text)
	b.answers(chat, n, want...)
}

// answers waits until the messages of the bot's from n on are these.
func (b *bot) answers(chat int64, n int, want ...string) {
	b.t.Helper()
	b.until(fmt.Sprintf("the bot says %.200q", want), func() bool { return slices.Equal(b.shown(chat)[n:], want) })
}

// says waits for a line in the log of the instance.
func (b *bot) says(line string) {
	b.t.Helper()
	eventually(b.t, "the log says "+line, func() bool { return strings.Contains(b.ok("logs", b.name), line) })
}

// gateways are the processes of the gateway beside an instance.
func (b *bot) gateways(name string) (found []int) {
	b.t.Helper()
	b.eachProcess(func(pid int, args string) {
		env, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ")) // it may have gone
		if strings.Contains(args, "aegis-gateway") && strings.Contains(string(env), "AEGIS_INSTANCE="+name+"\x00") {
			found = append(found, pid)
		}
	})
	return found
}

// botSays is what the model says: what its user wants it to.
func botSays(r modeltest.Request) modeltest.Step {
	var user history.Message
	turns := 0
	for _, m := range r.Messages {
		if m.Role == history.User {
			user = m
			turns++
		}
	}
	wants := func(s string) bool { return strings.Contains(user.Text, s) }
	used := r.Last().Role == history.Tool
	switch {
	case wants("count to ") && !used:
		_, n, _ := strings.Cut(user.Text, "count to ")
		return modeltest.Step{Text: counted(n), Pace: 100 * time.Millisecond}
	case wants("hang"):
		return modeltest.Step{Text: "I begin and do not end", Hang: true, CutAfter: 4}
	case wants("show") && !used:
		return botCall("respond_with_image", `{"path":"/workspace/picture.png"}`)
	case wants("notify") && !used:
		return botCall("notify", `{"text":"a notice"}`)
	case len(user.Images) > 0:
		return modeltest.Step{Text: fmt.Sprintf("I see %d picture of %s bytes", len(user.Images), user.Images[0].Blob)}
	}
	return modeltest.Step{Text: fmt.Sprintf("answer %d", turns)}
}

func botCall(name, args string) modeltest.Step {
	return modeltest.Step{Calls: []modeltest.Call{{ID: "call_1", Name: name, Args: args}}}
}

// counted is an answer of n words; n may have more behind the number.
func counted(n string) string {
	number, rest, _ := strings.Cut(n, " ")
	count, _ := strconv.Atoi(number)
	words := []string{"I count" + strings.TrimRight(" "+rest, " ")}
	for i := range count {
		words = append(words, strconv.Itoa(i))
	}
	return strings.Join(words, " ")
}

// TestGateway is an agent on Telegram as docs/GATEWAY.md has it: the kit agent, whose
// gateway the daemon runs, and a VM that sleeps until somebody writes.
func TestGateway(t *testing.T) {
	b := newBot(t)
	b.configure("") // nobody is allowed
	abilities := filepath.Join(t.TempDir(), "abilities.json")
	write(t, abilities, []byte(`{"llm": ["ollama"]}`), 0o600)
	b.ok("instance", "start", "--name", b.name, "--kit", "agent", "--capabilities", abilities,
		"--env", "AEGIS_MODEL=host:ollama/scripted", "--pause-after", "3s", "--stop-after", "0")
	b.says("the secret TELEGRAM_BOT_TOKEN is not set yet")
	set := b.aegis("secret", "set", "TELEGRAM_BOT_TOKEN")
	set.Stdin = strings.NewReader(telegramtest.Token + "\n")
	if r := finish(t, set); r.status != 0 {
		t.Fatalf("secret set: %+v", r)
	}
	b.until("the token is used", func() bool { return len(b.tg.Calls("getMe")) > 0 })
	if !b.info(b.name).GatewayRunning {
		t.Error("gateway_running is false")
	}
	b.ok("instance", "stop", "--hibernate", b.name)
	t.Run("nobody is allowed", b.part(testStranger))
	t.Run("a message wakes it", b.part(testWakes))
	t.Run("pictures", b.part(testPictures))
	t.Run("notify", b.part(func(_ *testing.T, b *bot) {
		b.ask(ours, "notify me", "a notice", "answer 4")
	}))
	t.Run("commands", b.part(testCommands))
	t.Run("a slip of the pen", b.part(testSlip))
	t.Run("a copy is no second bot", b.part(testCopy))
	t.Run("a webhook", b.part(testWebhook))
	t.Run("killed in the middle", b.part(testKilled))
	t.Run("down in the middle", b.part(testDown))
	t.Run("its end", b.part(testGone))
}

func testStranger(_ *testing.T, b *bot) {
	b.tg.Write(theirs, "let me in")
	b.says(fmt.Sprintf(`"allowed_chats\": [%d]`, theirs))
	if got, state := b.shown(theirs), b.info(b.name).State; len(got) > 0 || state != api.StateStopped {
		b.t.Errorf("it is %s, and says %q", state, got)
	}
}

func testWakes(t *testing.T, b *bot) {
	b.reconfigure("", strconv.Itoa(ours))
	if state := b.info(b.name).State; state != api.StateStopped {
		t.Errorf("before somebody writes it is %s", state)
	}
	whole := counted("30")
	partly := false
	b.tg.Write(ours, "count to 30")
	b.until("the answer is whole", func() bool {
		got := b.shown(ours)
		partly = partly || len(got) == 1 && got[0] != whole && strings.HasPrefix(whole, got[0])
		return slices.Equal(got, []string{whole})
	})
	if m := b.tg.FromBot(ours)[0]; !partly || m.Edits < 2 || len(b.tg.Calls("sendChatAction")) == 0 {
		t.Errorf("it did not grow: %d edits, typing %d times", m.Edits, len(b.tg.Calls("sendChatAction")))
	}
	for _, c := range b.tg.Calls("") {
		if c.Status != http.StatusOK {
			t.Errorf("%s: %d", c.Method, c.Status)
		}
	}
}

func testPictures(t *testing.T, b *bot) {
	n := len(b.shown(ours))
	b.tg.WritePhoto(ours, picture, "what is this?", "")
	b.answers(ours, n, fmt.Sprintf("I see 1 picture of %d bytes", len(picture)))
	write(t, filepath.Join(b.info(b.name).WorkspaceDir, "picture.png"), picture, 0o600)
	n++
	b.tg.Write(ours, "show it")
	b.answers(ours, n, "answer 3", "")
	if m := b.tg.FromBot(ours)[n+1]; !m.Photo || !bytes.Equal(m.File, picture) {
		t.Errorf("the picture is %q, a photo %v", m.File, m.Photo)
	}
}

func testCommands(t *testing.T, b *bot) {
	n := len(b.shown(ours))
	b.tg.Write(ours, "hang")
	b.until("it has begun", func() bool { got := b.shown(ours)[n:]; return len(got) == 1 && strings.HasPrefix(got[0], "I begin") })
	b.tg.Write(ours, "/cancel")
	b.until("it is stopped", func() bool {
		got := b.shown(ours)[n:]
		return len(got) == 1 && strings.HasPrefix(got[0], "I begin") && strings.Contains(got[0], "stopped by the user")
	})
	b.ask(ours, "/new", "A new conversation.")
	b.ask(ours, "hello", "answer 1")
	if got := b.shown(ours); len(got) != n+3 {
		t.Errorf("the chat: %q", got)
	}
}

func testSlip(_ *testing.T, b *bot) {
	write(b.t, b.conf, []byte(`{"telegram": {"allowed_chats": [1}`), 0o600)
	b.says("gateway.json is refused; what it said before stays in force")
	b.ask(ours, "are you there?", "answer 2")
	b.reconfigure("", strconv.Itoa(ours), strconv.Itoa(theirs))
	b.ask(theirs, "and for me?", "answer 1")
}

func testCopy(t *testing.T, b *bot) {
	b.ok("instance", "fork", b.name, "--name", "copy")
	if mine, its := b.gateways(b.name), b.gateways("copy"); len(mine) != 1 || len(its) > 1 {
		t.Errorf("gateways: %v, of the copy %v", mine, its)
	}
	b.ask(ours, "who answers?", "answer 3")
	b.ok("instance", "delete", "copy")
	if its := b.gateways("copy"); len(its) != 0 {
		t.Errorf("left of the copy: %v", its)
	}
	for _, c := range b.tg.Calls("getUpdates") {
		if c.Status == http.StatusConflict {
			t.Error("two have polled at a time")
		}
	}
}
