package telegram

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// texts returns the texts of what the agent was told; those of cancels are "cancel".
func (w *world) texts() []string {
	out := []string{}
	for _, f := range w.d.Received() {
		if f.Type == api.FrameCancel {
			out = append(out, "cancel")
			continue
		}
		out = append(out, gatewaytest.Message(f).Text)
	}
	return out
}

func TestNobodyIsAllowedByDefault(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.stop()
		w.allowed = nil
		w.begin()
		for range 50 {
			w.tg.Write(me, "let me in")
			w.tg.Write(-200, "/exec rm -rf /")
			w.pass(time.Minute)
		}
		if len(w.d.Received()) != 0 || len(w.tg.FromBot(me)) != 0 || len(w.tg.Calls("sendChatAction")) != 0 {
			t.Errorf("told: %q, said: %+v", w.texts(), w.tg.FromBot(me))
		}
		if n := w.log.count(`\"allowed_chats\": [100]`); n != 1 {
			t.Errorf("the log has the line to add %d times in an hour", n)
		}
		if w.tg.Unacknowledged() != 0 {
			t.Error("updates of strangers stay")
		}
		w.pass(time.Hour)
		w.tg.Write(me, "let me in")
		w.pass(time.Second)
		if n := w.log.count(`\"allowed_chats\": [100]`); n != 2 {
			t.Errorf("the log has the line to add %d times in two hours", n)
		}
	})
}

func TestEverybodyWhereTheUserSaysSo(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.stop()
		w.allowed = []chatID{everybody}
		w.begin()
		w.tg.Write(31337, "hello")
		w.pass(time.Second)
		if !slices.Equal(w.texts(), []string{"hello"}) {
			t.Errorf("told: %q", w.texts())
		}
	})
}

func TestWhoWrites(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.ask("hello")
		f := w.d.Received()[0]
		want := api.User{ID: "7", Username: "tester", Name: "Test Person"}
		if m := gatewaytest.Message(f); m.User == nil || *m.User != want || f.Session.ID != mine || f.Session.Channel != "telegram" || f.V != 1 {
			t.Errorf("the frame is %+v", f)
		}
	})
}

func TestUpdatesComeOnce(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Repeat(true)
		w.ask("one")
		w.d.Down(true)
		w.tg.Write(me, "two")
		w.pass(5 * time.Second)
		if w.tg.Unacknowledged() != 1 {
			t.Error("a message is acknowledged that nobody has")
		}
		w.stop() // in the middle of it
		w.begin()
		w.pass(5 * time.Second)
		w.d.Down(false)
		w.pass(time.Minute)
		if !slices.Equal(w.texts(), []string{"one", "two"}) || w.tg.Unacknowledged() != 0 {
			t.Errorf("told: %q; %d not acknowledged", w.texts(), w.tg.Unacknowledged())
		}
	})
}

func TestStoredButNotAcknowledged(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.stop()
		f := api.Frame{Type: api.FrameUserMessage, MsgID: "telegram-4242-100-1001", Payload: json.RawMessage(`{"text":"hello"}`)}
		if _, err := w.d.TetherSend(t.Context(), "", f); err != nil {
			t.Fatal(err)
		}
		w.begin()
		w.tg.Write(me, "hello") // 1001
		w.pass(time.Minute)
		if !slices.Equal(w.texts(), []string{"hello"}) || w.tg.Unacknowledged() != 0 {
			t.Errorf("told: %q", w.texts())
		}
	})
}

func TestPollsThatFail(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.pass(time.Second)
		w.tg.CutPolls()
		w.pass(time.Second)
		w.tg.Write(me, "after a cut")
		w.pass(time.Minute)
		w.tg.Fail(telegramtest.Fault{Method: "getMe", Times: 2, Code: 500, Text: "Internal Server Error"})
		w.tg.CutPolls()
		w.tg.Write(me, "after errors")
		w.pass(time.Minute)
		if !slices.Equal(w.texts(), []string{"after a cut", "after errors"}) {
			t.Errorf("told: %q", w.texts())
		}
	})
}

func TestTwoWithOneToken(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		first := w.stop
		w.dir = t.TempDir()
		w.begin()
		w.pass(time.Minute)
		if w.log.count("another program uses the bot's token") == 0 {
			t.Error("the log does not say it")
		}
		first()
		w.tg.Write(me, "hello")
		w.pass(time.Minute)
		if !slices.Equal(w.texts(), []string{"hello"}) {
			t.Errorf("told: %q", w.texts())
		}
	})
}

func TestABadTokenIsNamed(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.stop()
		ch := newChannel(slog.New(slog.NewTextHandler(w.log, nil)), secret.New("4242:wrong"), "http://telegram.test", telegramtest.Client{Server: w.tg})
		w.start(ch)
		w.pass(3 * time.Minute)
		if w.log.count("aegis secret set TELEGRAM_BOT_TOKEN") == 0 || w.log.count("4242:wrong") != 0 {
			t.Error("the log does not say what to do, or says too much")
		}
	})
}

func TestUpdatesThatCannotBeReadAreSkipped(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Put(map[string]any{"message": "no object"})
		w.tg.Put(map[string]any{"message": map[string]any{"chat": 7}})
		w.tg.Put(map[string]any{"something_new": true})
		w.ask("hello")
		if !slices.Equal(w.texts(), []string{"hello"}) || w.tg.Unacknowledged() != 0 {
			t.Errorf("told: %q, %d not acknowledged", w.texts(), w.tg.Unacknowledged())
		}
	})
}

func TestPicturesOfPeople(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Repeat(true)
		w.tg.WritePhoto(me, []byte("photo of a cat"), "what is it?", "")
		w.tg.WriteDocument(me, []byte("a large picture"), "image/png", "")
		w.tg.WriteDocument(me, []byte("%PDF"), "application/pdf", "")
		w.tg.WriteDocument(me, make([]byte, maxPicture+1), "image/png", "too large")
		for i := range 3 {
			w.tg.WritePhoto(me, fmt.Appendf(nil, "picture %d of an album", i), map[bool]string{true: "album"}[i == 0], "g1")
		}
		w.pass(time.Minute)
		got := w.d.Received()
		if len(got) != 3 {
			t.Fatalf("told: %q", w.texts())
		}
		for i, want := range [][]string{{"photo of a cat"}, {"a large picture"}, {"picture 0 of an album", "picture 1 of an album", "picture 2 of an album"}} {
			var have []string
			for _, p := range gatewaytest.Message(got[i]).Images {
				have = append(have, string(w.d.Blob(p.Blob)))
			}
			if !slices.Equal(have, want) {
				t.Errorf("message %d has %q, want %q", i, have, want)
			}
		}
		if !slices.Equal(w.texts(), []string{"what is it?", "", "album"}) {
			t.Errorf("told: %q", w.texts())
		}
		said := strings.Join(w.shown(), "|")
		if !strings.Contains(said, "text and pictures") || !strings.Contains(said, "did not reach the agent") {
			t.Errorf("said: %q", said)
		}
	})
}

func TestLongTextsAreOneMessage(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		long := strings.TrimSpace(strings.Repeat("word ", 815))
		w.tg.Write(me, long)
		w.pass(100 * time.Millisecond)
		w.tg.Write(me, long)
		w.tg.Write(me, "and the end")
		w.tg.Write(me, "another")
		w.tg.Write(me, long)
		w.tg.Write(me, "/cancel")
		w.pass(5 * time.Second)
		if want := []string{long + "\n" + long + "\nand the end", "another", long, "cancel"}; !slices.Equal(w.texts(), want) {
			t.Errorf("told: %.20q (%d)", w.texts(), len(w.texts()))
		}
	})
}

func TestCommands(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Write(me, "/start")
		w.pass(2 * time.Second)
		w.d.Done("telegram", mine, w.ask("hello"), "")
		w.pass(2 * time.Second)
		w.tg.Write(me, "/cancel")
		w.pass(2 * time.Second)
		w.tg.Write(me, "/new@"+telegramtest.BotName)
		w.pass(2 * time.Second)
		w.ask("again")
		w.ask("/unknown command")
		w.tg.Write(me, "/exec id")
		w.pass(5 * time.Second)
		got := w.d.Received()
		if want := []string{"hello", "cancel", "cancel", "again", "/unknown command"}; !slices.Equal(w.texts(), want) {
			t.Fatalf("told: %q, want %q", w.texts(), want)
		}
		if old, now := got[2].Session.ID, got[3].Session.ID; old != mine || !strings.HasPrefix(now, mine+"_") {
			t.Errorf("sessions %q and %q", old, now)
		}
		said := strings.Join(w.shown(), "|")
		for _, want := range []string{"an agent in a VM", "Stopped.", "A new conversation.", "not allowed here"} {
			if !strings.Contains(said, want) {
				t.Errorf("said: %q, and not %q", said, want)
			}
		}
		w.stop()
		w.begin()
		w.ask("the session is still the new one")
		got = w.d.Received()
		if last := got[len(got)-1].Session.ID; last != got[3].Session.ID {
			t.Errorf("after a restart the session is %q", last)
		}
		w.d.Done("telegram", got[3].Session.ID, w.reply(), "it is")
		w.pass(2 * time.Second)
		if s := w.shown(); s[len(s)-1] != "it is" {
			t.Errorf("said: %q", s)
		}
	})
}

func TestARefusedMessageIsAnswered(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.d.Refuse(fault.New(fault.TooLarge, "the frame is too large"))
		w.tg.Write(me, "very long")
		w.pass(5 * time.Second)
		w.d.Refuse(nil)
		w.ask("short")
		if s := strings.Join(w.shown(), "|"); !strings.Contains(s, "too large") || !slices.Equal(w.texts(), []string{"short"}) {
			t.Errorf("said %q, told %q", s, w.texts())
		}
	})
}

func TestOpenRefusesWhatIsWrong(t *testing.T) {
	keys := gateway.NewKeys(map[string]string{"T": "1:a"}, func(string) (string, bool) { return "", false })
	for section, want := range map[string]fault.Kind{
		`{"bot_token_secret":"T"}`:                                 "",
		`{"bot_token":"1:x","allowed_chats":[1,"-2","*"]}`:         "",
		`{"bot_token_secret":"LATER"}`:                             fault.Unavailable,
		`{"bot_token_env":"LATER"}`:                                fault.Unavailable,
		`{}`:                                                       fault.Invalid,
		`{"bot_token_secret":"T","bot_token":"1:x"}`:               fault.Invalid,
		`{"bot_token_secret":"T","allowed_chat":[1]}`:              fault.Invalid,
		`{"bot_token_secret":"T","allowed_chats":["me"]}`:          fault.Invalid,
		`{"bot_token_secret":"T","allowed_chats":[0]}`:             fault.Invalid,
		`{"bot_token_secret":"T","allowed_chats":"*"}`:             fault.Invalid,
		`{"bot_token_secret":"T","allowed_chats":[*]}`:             fault.Invalid,
		`{"bot_token_secret":"T","api_base":"telegram.org"}`:       fault.Invalid,
		`{"bot_token_secret":"T","api_base":"http://x/%s"}`:        fault.Invalid,
		`{"bot_token":"1:a/../x"}`:                                 fault.Invalid,
		`{"bot_token_secret":"T","allow_exec":"yes"}`:              fault.Invalid,
		`{"bot_token_secret":"T","api_base":"http://127.0.0.1:1"}`: "",
	} {
		_, err := open(slog.New(slog.DiscardHandler), json.RawMessage(section), keys)
		if got := fault.KindOf(err); err != nil && (got != want || fault.HintOf(err) == "") || err == nil && want != "" {
			t.Errorf("%s: %v (%s, hint %q), want %q", section, err, got, fault.HintOf(err), want)
		}
	}
}

func FuzzDecodeUpdates(f *testing.F) {
	for _, s := range []string{
		`[]`, `[{"update_id":1,"message":{"message_id":2,"chat":{"id":3,"type":"private"},"text":"hi","from":{"id":4}}}]`,
		`[{"update_id":1,"message":{"chat":{"id":3},"photo":[{"file_id":"a","file_size":9}],"caption":"/exec@x y"}}]`,
		`[{"update_id":"x"},{"update_id":2},7,null]`, `{}`, `[{"update_id":1,"message":{"chat":{"id":3},"document":{"mime_type":"image/png"}}}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		us, err := decodeUpdates(raw)
		if err != nil {
			return
		}
		n := 0
		for _, group := range albums(us) {
			n += len(group)
		}
		if n > len(us) || n == 0 && len(us) > 0 {
			t.Fatalf("%d of %d updates", n, len(us))
		}
		for _, u := range us {
			if u.message == nil {
				continue
			}
			if u.message.Chat.ID == 0 {
				t.Fatal("a message of no chat")
			}
			command(u.message.Text, "bot")
			writer(u.message)
			if id, size := pictureOf(u.message); id == "" && size > maxPicture {
				t.Fatal("no picture, but its size")
			}
			textOf(u.message)
		}
	})
}
