package message

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func frameOf(t api.FrameType, payload string) api.Frame {
	return api.Frame{Type: t, Session: api.Session{Channel: "ui", ID: "a"}, Payload: json.RawMessage(payload)}
}

func TestWays(t *testing.T) {
	for _, c := range []struct {
		frame   api.Frame
		ingress bool
		replyTo string
	}{
		{frameOf(api.FrameUserMessage, `{"text":"hi"}`), true, ""},
		{frameOf(api.FrameUserMessage, `{"text":"","images":[{"media_type":"image/png","blob":"a.png","size":3}],"more":1}`), true, ""},
		{frameOf(api.FrameCancel, ""), true, ""},
		{frameOf(api.FrameCancel, "null"), true, ""},
		{frameOf(api.FrameCancel, "{}"), true, ""},
		{frameOf(api.FramePresence, `{"state":"idle"}`), false, ""},
		{frameOf(api.FrameDelta, `{"text":"x","reply_to":"m"}`), false, "m"},
		{frameOf(api.FrameReasoningDelta, `{"text":"x"}`), false, ""},
		{frameOf(api.FrameDone, `{"text":"","reply_to":"m"}`), false, "m"},
		{frameOf(api.FrameReasoningDone, `{"text":"x"}`), false, ""},
		{frameOf(api.FrameAck, `{"reply_to":"m"}`), false, "m"},
	} {
		in, out := c.frame, c.frame
		in.Seq, out.Seq = 7, 7
		errIn := Ingress(&in, now)
		replyTo, errOut := Egress(&out, now)
		if (errIn == nil) != c.ingress || (errOut == nil) == c.ingress || replyTo != c.replyTo {
			t.Errorf("%s %s: %v, %v, %q", c.frame.Type, c.frame.Payload, errIn, errOut, replyTo)
		}
		done := in
		if !c.ingress {
			done = out
		}
		if done.Seq != 0 || done.V != 1 || !done.TS.Equal(now) || done.MsgID == "" || done.Session != c.frame.Session {
			t.Errorf("completed: %+v", done)
		}
	}
}

func TestDefaultSession(t *testing.T) {
	f := api.Frame{Type: api.FrameCancel}
	if err := Ingress(&f, now); err != nil || f.Session != (api.Session{Channel: "host", ID: "default"}) {
		t.Errorf("%+v, %v", f, err)
	}
	f = frameOf(api.FramePresence, `{"state":"idle"}`)
	f.Session = api.Session{}
	if _, err := Egress(&f, now); err == nil {
		t.Error("an agent's frame without a session")
	}
}

func TestRefused(t *testing.T) {
	with := func(change func(*api.Frame)) api.Frame {
		f := frameOf(api.FrameUserMessage, `{"text":"hi"}`)
		change(&f)
		return f
	}
	for name, f := range map[string]api.Frame{
		"no type":         with(func(f *api.Frame) { f.Type = "" }),
		"unknown type":    with(func(f *api.Frame) { f.Type = "user.shout" }),
		"version":         with(func(f *api.Frame) { f.V = 2 }),
		"time":            with(func(f *api.Frame) { f.TS = time.Date(1, 1, 1, 1, 0, 0, 0, time.UTC) }),
		"channel":         with(func(f *api.Frame) { f.Session.Channel = "mail" }),
		"path":            with(func(f *api.Frame) { f.Session.ID = "../../etc" }),
		"dot":             with(func(f *api.Frame) { f.Session.ID = ".." }),
		"long session":    with(func(f *api.Frame) { f.Session.ID = strings.Repeat("a", 129) }),
		"msg_id":          with(func(f *api.Frame) { f.MsgID = "a b" }),
		"long msg_id":     with(func(f *api.Frame) { f.MsgID = strings.Repeat("a", 129) }),
		"nothing said":    frameOf(api.FrameUserMessage, `{"text":""}`),
		"no payload":      frameOf(api.FrameUserMessage, ""),
		"no object":       frameOf(api.FrameUserMessage, `"hi"`),
		"cut off":         frameOf(api.FrameUserMessage, `{"text":"hi"`),
		"not UTF-8":       frameOf(api.FrameUserMessage, "{\"text\":\"\xff\"}"),
		"too large":       frameOf(api.FrameUserMessage, `{"text":"`+strings.Repeat("a", MaxPayload)+`"}`),
		"cancel":          frameOf(api.FrameCancel, `[]`),
		"picture's path":  frameOf(api.FrameUserMessage, `{"images":[{"blob":"../secret"}]}`),
		"no picture":      frameOf(api.FrameUserMessage, `{"images":[{"blob":""}]}`),
		"picture's size":  frameOf(api.FrameUserMessage, `{"images":[{"blob":"a","size":-1}]}`),
		"many pictures":   frameOf(api.FrameUserMessage, `{"images":[`+strings.Repeat(`{"blob":"a"},`, 16)+`{"blob":"a"}]}`),
		"presence":        frameOf(api.FramePresence, `{}`),
		"ack of nothing":  frameOf(api.FrameAck, `{}`),
		"delta too large": frameOf(api.FrameDelta, `{"text":"`+strings.Repeat("a", MaxDelta)+`"}`),
		"bad reply_to":    frameOf(api.FrameDone, `{"text":"x","reply_to":"a b"}`),
	} {
		in, out := f, f
		errIn := Ingress(&in, now)
		_, errOut := Egress(&out, now)
		for _, err := range []error{errIn, errOut} {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.TooLarge {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestSelects(t *testing.T) {
	f := frameOf(api.FrameDelta, `{"text":"x"}`)
	for _, c := range []struct {
		q    Query
		want bool
	}{
		{Query{}, true},
		{Query{Channel: "ui", Session: "a", ReplyTo: "m", Types: []api.FrameType{api.FrameDone, api.FrameDelta}}, true},
		{Query{Channel: "host"}, false},
		{Query{Session: "b"}, false},
		{Query{ReplyTo: "n"}, false},
		{Query{Types: []api.FrameType{api.FrameDone}}, false},
	} {
		if got := c.q.Selects(f, "m"); got != c.want {
			t.Errorf("%+v: %v", c.q, got)
		}
	}
}

// FuzzFrame feeds frames as guests and clients may send them. What is taken in can be
// stored and read again as it is.
func FuzzFrame(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"type":"user.message","ts":"2026-01-02T03:04:05Z","session":{"channel":"host","id":"a"},"msg_id":"m","payload":{"text":"hi"}}`,
		`{"type":"control.cancel","session":{"channel":"ui","id":"-1"}}`,
		`{"type":"assistant.done","session":{"channel":"cron","id":"x"},"payload":{"text":"","images":[{"blob":"a.png"}],"reply_to":"m"}}`,
		`{"type":"assistant.delta","session":{"channel":"telegram","id":"1"},"payload":{"text":"\u0000\ud800"}}`,
		`{"type":"status.presence","session":{"channel":"host","id":"a"},"payload":{"state":"idle","state":1}}`,
		`{"type":"event.ack","ts":"9999-12-31T23:59:59-23:59","session":{"channel":"host","id":"a"},"payload":{"reply_to":"m"}}`,
		`{"type":"reasoning.done","payload":null}`, `{}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var in api.Frame
		if json.Unmarshal(data, &in) != nil {
			return
		}
		out := in
		_, errOut := Egress(&out, now)
		if errIn := Ingress(&in, now); errIn == nil && errOut == nil {
			t.Fatalf("%s goes both ways", in.Type)
		} else if errIn != nil {
			in = out
			if errOut != nil {
				return
			}
		}
		if len(in.Payload) > MaxPayload || !utf8.Valid(in.Payload) || strings.ContainsAny(in.Session.ID, "/\\\x00") || in.Session.ID[0] == '.' || len(in.MsgID) > 128 {
			t.Fatalf("taken in: %+v", in)
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var again api.Frame
		if err := json.Unmarshal(b, &again); err != nil || again.MsgID != in.MsgID || !again.TS.Equal(in.TS) {
			t.Fatalf("%s: %+v, %v", b, again, err)
		}
	})
}
