package cli

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// TestRemainder: whatever was shown of an answer, all of it stands there in the end.
func TestRemainder(t *testing.T) {
	pictures := []api.Picture{{Blob: "a.png"}, {Blob: "b.png"}}
	for _, c := range []struct {
		shown  string
		answer api.AssistantMessage
		want   string
	}{
		{"", api.AssistantMessage{Text: "hello"}, "hello\n"},
		{"hel", api.AssistantMessage{Text: "hello"}, "lo\n"},
		{"hello", api.AssistantMessage{Text: "hello"}, "\n"},
		{"hello\n", api.AssistantMessage{Text: "hello\n"}, ""},
		{"llo", api.AssistantMessage{Text: "hello"}, "\nhello\n"},
		{"hello", api.AssistantMessage{Text: "", Error: "cancelled"}, "\n\n"},
		{"he", api.AssistantMessage{Text: "hello", Images: pictures}, "llo\n[image a.png]\n[image b.png]\n"},
	} {
		if got := remainder(c.shown, c.answer); got != c.want {
			t.Errorf("%q of %+v: %q, want %q", c.shown, c.answer, got, c.want)
		}
	}
}

func TestFrameText(t *testing.T) {
	for _, c := range []struct {
		kind          api.FrameType
		payload, want string
	}{
		{api.FrameUserMessage, `{"text":"a\nb\n"}`, "user.message  a\n    b"},
		{api.FrameUserMessage, `{"text":"","images":[{"blob":"a.png"}]}`, "user.message  [image a.png]"},
		{api.FrameDone, `{"text":"x"}`, "assistant.done  x"},
		{api.FramePresence, `{"state":"idle"}`, "status.presence  idle"},
		{api.FrameAck, `{"reply_to":"m"}`, "event.ack  m"},
		{api.FrameCancel, "", "control.cancel"},
	} {
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
		f := api.Frame{Seq: 7, Type: c.kind, TS: at, Session: api.Session{Channel: "ui", ID: "s"}, Payload: json.RawMessage(c.payload)}
		if got, want := frameText(f), "7  2026-01-02 03:04:05  ui/s  "+c.want+"\n"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
