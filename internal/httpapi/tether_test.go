package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/message"
)

// wire is a Tether that remembers what it was asked.
type wire struct {
	q     message.Query
	wait  time.Duration
	fresh bool
	sent  api.Frame
	err   error
}

func (w *wire) Send(_ context.Context, ref string, f api.Frame) (api.TetherSent, error) {
	w.sent = f
	return api.TetherSent{MsgID: "m", SessionID: ref, IngressSeq: 7}, w.err
}

func (w *wire) Poll(_ context.Context, _ string, q message.Query, wait time.Duration) (api.TetherPage, error) {
	w.q, w.wait = q, wait
	return api.TetherPage{Frames: []api.Frame{{Seq: 8}}, NextSeq: 8}, w.err
}

func (w *wire) Stream(_ context.Context, _ string, q message.Query, fresh bool) (iter.Seq2[api.Frame, error], error) {
	w.q, w.fresh = q, fresh
	return func(yield func(api.Frame, error) bool) {
		_ = yield(api.Frame{Seq: 1}, nil) && yield(api.Frame{Seq: 2}, nil) && yield(api.Frame{}, fault.New(fault.Unavailable, "over"))
	}, w.err
}

func (w *wire) Watermark(_ context.Context, _, channel string) (api.Watermark, error) {
	return api.Watermark{Channel: channel, Seq: 3}, w.err
}

func (w *wire) SetWatermark(_ context.Context, _ string, m api.Watermark) (api.Watermark, error) {
	return m, w.err
}

func TestTether(t *testing.T) {
	w := &wire{}
	c, _, socket := serveConfig(t, &stubRunner{}, Config{Tether: w}, os.Getuid())
	payload, _ := json.Marshal(api.UserMessage{Text: strings.Repeat("<", message.MaxPayload-100)}) // six bytes each, escaped
	_, err := c.TetherSend(t.Context(), "web", api.Frame{Type: api.FrameUserMessage, Payload: payload})
	if err == nil {
		t.Error("a frame over the limit of a body")
	}
	sent, err := c.TetherSend(t.Context(), "web", api.Frame{Type: api.FrameUserMessage, Payload: json.RawMessage(`{"text":"hi"}`)})
	if err != nil || sent != (api.TetherSent{MsgID: "m", SessionID: "web", IngressSeq: 7}) || string(w.sent.Payload) != `{"text":"hi"}` {
		t.Errorf("%+v, %v", sent, err)
	}
	q := client.TetherQuery{
		Session: api.Session{Channel: "ui", ID: "a"}, After: 1, Before: 9, Limit: 5, Wait: 2 * time.Second,
		Types: []api.FrameType{api.FrameDone, api.FrameDelta}, ReplyToID: "m",
	}
	want := message.Query{After: 1, Before: 9, Limit: 5, Channel: "ui", Session: "a", Types: q.Types, ReplyTo: "m"}
	if page, err := c.TetherPoll(t.Context(), "web", q); err != nil || page.NextSeq != 8 || !reflect.DeepEqual(w.q, want) || w.wait != 2*time.Second {
		t.Errorf("%+v, %v; asked for %+v, %v", page, err, w.q, w.wait)
	}
	var seqs []int64
	for f, err := range c.TetherStream(t.Context(), "web", client.TetherQuery{}) {
		if err != nil {
			wantFault(t, err, fault.Unavailable, "over")
			break
		}
		seqs = append(seqs, f.Seq)
	}
	if !reflect.DeepEqual(seqs, []int64{1, 2}) || !w.fresh {
		t.Errorf("streamed %v, from now on: %v", seqs, w.fresh)
	}
	for _, err := range c.TetherStream(t.Context(), "web", client.TetherQuery{After: 4}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if w.fresh || w.q.After != 4 {
		t.Errorf("a stream behind 4 asks for %+v, %v", w.q, w.fresh)
	}
	if m, err := c.TetherWatermark(t.Context(), "web", "ui"); err != nil || m != (api.Watermark{Channel: "ui", Seq: 3}) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := c.SetTetherWatermark(t.Context(), "web", api.Watermark{Channel: "ui", Seq: 5}); err != nil || m.Seq != 5 {
		t.Errorf("%+v, %v", m, err)
	}
	w.err = fault.New(fault.Conflict, "it is disabled")
	_, err = c.TetherSend(t.Context(), "web", api.Frame{})
	wantFault(t, err, fault.Conflict, "it is disabled")
	statusesOf(t, socket)
}

// statusesOf checks the statuses of requests as other clients make them.
func statusesOf(t *testing.T, socket string) {
	t.Helper()
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "tether", `{"type":"user.message","seq":1,"payload":{"text":"x"},"more":1}`, 400},
		{"POST", "tether", `{"type":"user.message","payload":{"text":"x"}}`, 409}, // as the last that was asked
		{"GET", "tether/poll?after_seq=-1", "", 400},
		{"GET", "tether/poll?after_seq=x", "", 400},
		{"GET", "tether/poll?limit=1e3", "", 400},
		{"GET", "tether/poll?types=user.message,shout", "", 400},
		{"GET", "tether/poll?channel=mail", "", 400},
		{"GET", "tether/poll?after=1", "", 400},
		{"GET", "tether/stream?types=,", "", 409},
		{"DELETE", "tether", "", 405},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://x/v1/instances/web/"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it is read to its end
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s %s: %d %s, want %d; %v", c.method, c.path, resp.StatusCode, b, c.want, err)
		}
	}
}
