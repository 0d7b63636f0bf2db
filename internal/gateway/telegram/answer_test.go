package telegram

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
)

func TestOneMessageGrows(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		if len(w.tg.Calls("sendChatAction")) == 0 {
			t.Error("nobody types")
		}
		var whole strings.Builder
		for i := range 200 { // 20 seconds of them
			word := fmt.Sprintf("word%d ", i)
			whole.WriteString(word)
			w.d.Delta("telegram", mine, reply, word)
			w.pass(100 * time.Millisecond)
		}
		if got := w.shown(); len(got) != 1 || !strings.HasPrefix(got[0], "word0 word1") {
			t.Fatalf("under way there is %q", got)
		}
		seq := w.d.Done("telegram", mine, reply, whole.String()+"**end**")
		w.pass(3 * time.Second)
		got := w.tg.FromBot(me)
		if len(got) != 1 || got[0].Text != whole.String()+"end" {
			t.Fatalf("in the end there is %+v", got)
		}
		if len(got[0].Entities) != 1 || got[0].Entities[0].Type != "bold" {
			t.Errorf("entities %+v", got[0].Entities)
		}
		if got[0].Edits < 10 || got[0].Edits > 25 || w.refused() > 0 {
			t.Errorf("%d edits in 23 seconds, %d calls refused", got[0].Edits, w.refused())
		}
		if w.d.Mark("telegram") != seq || w.tg.Unacknowledged() != 0 {
			t.Errorf("watermark %d of %d, %d updates not acknowledged", w.d.Mark("telegram"), seq, w.tg.Unacknowledged())
		}
	})
}

func TestTypingGoesOnAndEnds(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Say("telegram", mine, api.FramePresence, api.Presence{State: "thinking"})
		w.pass(20 * time.Second)
		n := len(w.tg.Calls("sendChatAction"))
		if n < 4 || n > 6 {
			t.Errorf("%d times typing in 20 seconds", n)
		}
		w.d.Done("telegram", mine, reply, "hi")
		w.pass(time.Second)
		n = len(w.tg.Calls("sendChatAction"))
		w.pass(time.Minute)
		if after := len(w.tg.Calls("sendChatAction")); after != n {
			t.Errorf("typing goes on %d times behind the answer", after-n)
		}
		w.ask("are you there?") // the agent is not
		w.pass(time.Hour)
		n = len(w.tg.Calls("sendChatAction"))
		w.pass(time.Hour)
		if after := len(w.tg.Calls("sendChatAction")); after != n {
			t.Error("typing goes on for ever")
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.tg.Fail(telegramtest.Fault{Method: "sendMessage", Times: 1, Code: 429, Text: "Too Many Requests: retry after 17", Retry: 17})
		w.d.Done("telegram", mine, reply, "answer")
		w.pass(time.Minute)
		calls := w.tg.Calls("sendMessage")
		if len(calls) != 2 || calls[1].At.Sub(calls[0].At) < 17*time.Second {
			t.Errorf("calls: %+v", calls)
		}
		if got := w.shown(); !slices.Equal(got, []string{"answer"}) {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestLongAnswers(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("tell me all")
		text := strings.Repeat("All work and no play. ", 300) + "\n\n```go\n" + strings.Repeat("func f() {} // 🎉\n", 300) + "```\n\nThe end."
		for chunk := range slices.Chunk([]byte(text), 500) {
			w.d.Delta("telegram", mine, reply, strings.ToValidUTF8(string(chunk), ""))
			w.pass(200 * time.Millisecond)
		}
		w.d.Done("telegram", mine, reply, text)
		w.pass(time.Minute)
		if got, want := letters(strings.Join(w.shown(), "")), letters(render(text).text); got != want {
			t.Errorf("%d messages with %d letters, want %d", len(w.shown()), len(got), len(want))
		}
		if n := len(w.shown()); n < 3 || n > 5 || w.refused() > 0 {
			t.Errorf("%d messages, %d calls refused", n, w.refused())
		}
	})
}

func TestTooLongForAChat(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("tell me more")
		w.d.Done("telegram", mine, reply, strings.Repeat("word ", 100_000))
		w.pass(10 * time.Minute)
		got := w.shown()
		if len(got) != maxParts || !strings.Contains(got[len(got)-1], "too long") {
			t.Errorf("%d messages", len(got))
		}
	})
}

func TestRefusedFormattingIsLeftOut(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.tg.RefuseEntities(true)
		w.d.Delta("telegram", mine, reply, "some **bo")
		w.pass(5 * time.Second)
		w.d.Done("telegram", mine, reply, "some **bold** text")
		w.pass(10 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"some **bold** text"}) {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestDeletedMessagesAreSentAgain(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Delta("telegram", mine, reply, "some ")
		w.pass(5 * time.Second)
		w.tg.Fail(telegramtest.Fault{Method: "editMessageText", Times: 1, Code: 400, Text: "Bad Request: message to edit not found"})
		w.d.Done("telegram", mine, reply, "some text")
		w.pass(10 * time.Second)
		if got := w.shown(); !slices.Contains(got, "some text") {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestABlockedBotLosesNobodyElsesAnswer(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.ask("hello")
		w.tg.Write(-200, "hello from the group")
		w.pass(time.Second)
		w.tg.Fail(telegramtest.Fault{Method: "sendMessage", Times: 1, Code: 403, Text: "Forbidden: bot was blocked by the user"})
		w.d.Done("telegram", mine, "", "to nobody")
		w.pass(time.Second)
		seq := w.d.Done("telegram", "-200", "", "to the group")
		w.pass(10 * time.Second)
		if got := w.tg.FromBot(-200); len(got) != 1 || w.d.Mark("telegram") != seq {
			t.Errorf("in the group: %+v; watermark %d of %d", got, w.d.Mark("telegram"), seq)
		}
	})
}

func TestServerErrorsAreWaitedFor(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.tg.Fail(telegramtest.Fault{Method: "sendMessage", Times: 3, Code: 502, Text: "Bad Gateway"})
		w.d.Done("telegram", mine, reply, "answer")
		w.pass(time.Minute)
		if got := w.shown(); !slices.Equal(got, []string{"answer"}) {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestAMessageWhoseAnswerIsLostIsThereOnce(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.tg.Fail(telegramtest.Fault{Method: "sendMessage", Times: 2, After: true})
		w.tg.Write(me, "another of mine, which nobody deletes")
		w.d.Done("telegram", mine, reply, "answer")
		w.pass(time.Minute)
		if got := w.shown(); !slices.Equal(got, []string{"answer"}) || len(w.tg.Deleted(me)) != 2 {
			t.Errorf("shown: %q, deleted: %+v", got, w.tg.Deleted(me))
		}
		for _, m := range w.tg.Deleted(me) {
			if !m.FromBot {
				t.Errorf("a message of a person's is deleted: %q", m.Text)
			}
		}
	})
}

func TestNotifyGoesToTheChatThatAsked(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Delta("telegram", mine, reply, "half of ")
		w.pass(3 * time.Second)
		w.d.Done("telegram", mine, "", "by the way")
		w.pass(3 * time.Second)
		w.d.Done("telegram", mine, reply, "half of it, and the rest")
		w.pass(3 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"half of it, and the rest", "by the way"}) {
			t.Errorf("shown: %q", got)
		}
		w.d.Done("telegram", "0", "", "to chat 0")
		w.d.Done("telegram", "999", "", "to a stranger")
		seq := w.d.Done("telegram", "../../x", "", "to a path")
		w.pass(time.Second)
		if w.d.Mark("telegram") != seq {
			t.Errorf("watermark %d of %d", w.d.Mark("telegram"), seq)
		}
	})
}

func TestErrorsAreSaid(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Say("telegram", mine, api.FrameDone, api.AssistantMessage{ReplyTo: reply, Error: "the key is refused"})
		w.pass(3 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"⚠️ the key is refused"}) {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestPicturesOfAnswers(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("draw")
		png := append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 100)...)
		good, _ := w.d.PutBlob(t.Context(), "", png)
		odd, _ := w.d.PutBlob(t.Context(), "", []byte("no picture at all"))
		pic := func(b api.Blob) api.Picture { return api.Picture{Blob: b.Blob, MediaType: b.MediaType} }
		w.d.Done("telegram", mine, reply, "here", pic(good), pic(odd), api.Picture{Blob: "../../etc/passwd"})
		w.pass(time.Minute)
		got := w.tg.FromBot(me)
		if len(got) != 4 || !got[1].Photo || got[2].Photo || string(got[2].File) != "no picture at all" || !strings.Contains(got[3].Text, "cannot be shown") {
			t.Errorf("shown: %+v", got)
		}
	})
}

func TestGroupsAreSlower(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Write(-200, "hello")
		w.pass(time.Second)
		for i := range 600 {
			w.d.Delta("telegram", "-200", "r", fmt.Sprint(i, " "))
			w.pass(200 * time.Millisecond)
		}
		if n := len(w.tg.Calls("editMessageText")); n < 20 || w.refused() > 0 {
			t.Errorf("%d edits in two minutes, %d refused", n, w.refused())
		}
	})
}
