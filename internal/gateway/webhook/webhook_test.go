package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var keys = gateway.NewKeys(map[string]string{"HOOK": "sesame"}, func(string) (string, bool) { return "", false })

func TestOpenRefusesWhatIsWrong(t *testing.T) {
	for section, want := range map[string]fault.Kind{
		`{"listen":"127.0.0.1:1","post_url":"http://x/","token_secret":"HOOK"}`:  "",
		`{"listen":"[::1]:1","post_url":"https://x/","token":"t"}`:               "",
		`{"listen":"127.0.0.1:1","post_url":"http://x/","token_secret":"LATER"}`: fault.Unavailable,
		`{"listen":"127.0.0.1:1","post_url":"http://x/"}`:                        fault.Invalid,
		`{"listen":"0.0.0.0:1","post_url":"http://x/","token":"t"}`:              fault.Invalid,
		`{"listen":"localhost:1","post_url":"http://x/","token":"t"}`:            fault.Invalid,
		`{"listen":"127.0.0.1:1","post_url":"file:///x","token":"t"}`:            fault.Invalid,
		`{"listen":"127.0.0.1:1","post_url":"http://x/","token":"t","x":1}`:      fault.Invalid,
	} {
		_, err := open(slog.New(slog.DiscardHandler), json.RawMessage(section), keys)
		if got := fault.KindOf(err); err != nil && (got != want || fault.HintOf(err) == "") || err == nil && want != "" {
			t.Errorf("%s: %v (%s, hint %q), want %q", section, err, got, fault.HintOf(err), want)
		}
	}
}

// TestRefusals tells those for good from those that pass.
func TestRefusals(t *testing.T) {
	for want, all := range map[int][]error{
		http.StatusBadRequest:            {fault.New(fault.Invalid, "no picture"), fmt.Errorf("send: %w", fault.New(fault.Invalid, "x"))},
		http.StatusRequestEntityTooLarge: {fault.New(fault.TooLarge, "long"), fault.Wrap(fault.Invalid, &http.MaxBytesError{Limit: 1}, "decode")},
		http.StatusServiceUnavailable:    {fault.New(fault.Conflict, "disabled"), fault.New(fault.Exhausted, "full"), io.ErrUnexpectedEOF, context.Canceled},
	} {
		for _, err := range all {
			if got := statusOf(err); got != want {
				t.Errorf("%v: %d, want %d", err, got, want)
			}
		}
	}
}

// receiver is a program that takes answers. It refuses the first.
type receiver struct {
	mu   sync.Mutex
	got  []Out
	keys []string
	came chan struct{}
	fail int
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var out Out
	err := json.NewDecoder(req.Body).Decode(&out)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || req.Header.Get("Authorization") != "Bearer sesame" || r.fail > 0 {
		r.fail--
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	r.got = append(r.got, out)
	r.keys = append(r.keys, req.Header.Get("Idempotency-Key"))
	r.came <- struct{}{}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestMessagesAndAnswers(t *testing.T) {
	r := &receiver{came: make(chan struct{}, 8), fail: 1}
	web := httptest.NewServer(r)
	defer web.Close()
	addr := freePort(t)
	section := `{"listen":"` + addr + `","post_url":"` + web.URL + `","token_secret":"HOOK"}`
	ch, err := open(slog.New(slog.DiscardHandler), json.RawMessage(section), keys)
	if err != nil {
		t.Fatal(err)
	}
	d, dir := gatewaytest.New(), t.TempDir()
	begin := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { gateway.NewLine(slog.New(slog.DiscardHandler), d, "agent", "webhook", dir).Run(ctx, ch) })
		return func() {
			cancel()
			wg.Wait()
		}
	}
	stop := begin()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	post := func(token, body string) int {
		for {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/v1/messages", bytes.NewReader([]byte(body)))
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := client.Do(req)
			if err != nil { // it does not listen yet
				continue
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			return resp.StatusCode
		}
	}
	for body, want := range map[string]int{
		`{"session":"s","id":"1","text":"hello","images":["aGk="]}`: 202,
		`{"text":""}`: 400, `{"txt":"x"}`: 400, `no JSON`: 400, `{"text":"x","cancel":true}`: 400,
	} {
		if got := post("sesame", body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	post("sesame", `{"session":"s","id":"1","text":"hello"}`) // again
	if got := post("wrong", `{"text":"x"}`); got != http.StatusUnauthorized {
		t.Errorf("a wrong token: %d", got)
	}
	got := d.Received()
	if len(got) != 1 || got[0].Session.ID != "s" || string(d.Blob(gatewaytest.Message(got[0]).Images[0].Blob)) != "hi" {
		t.Fatalf("the agent has %+v", got)
	}
	blob, _ := d.PutBlob(t.Context(), "", []byte("picture"))
	d.Done("webhook", "s", got[0].MsgID, "answer", api.Picture{Blob: blob.Blob})
	<-r.came
	_ = d.Wait(t.Context(), func() bool { return d.Mark("webhook") == d.Last() })
	stop()
	seq := d.Done("webhook", "s", "", "by the way")
	defer begin()()
	<-r.came
	want := []Out{{Session: "s", Seq: 2, Text: "answer", ReplyTo: got[0].MsgID, Images: [][]byte{[]byte("picture")}}, {Session: "s", Seq: seq, Text: "by the way"}}
	if a, _ := json.Marshal(want); true {
		if b, _ := json.Marshal(r.got); !bytes.Equal(a, b) || !slices.Equal(r.keys, []string{"2", "3"}) {
			t.Errorf("answers %s with keys %q, want %s", b, r.keys, a)
		}
	}
}
