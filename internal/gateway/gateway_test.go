package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spy is a kind of channels that tells what runs.
type spy struct {
	began, ended chan string
}

type spied struct {
	spy

	token string
}

func (s spy) open(_ *slog.Logger, section json.RawMessage, keys Keys) (Channel, error) {
	var conf struct {
		TokenSecret string `json:"token_secret"`
		Token       string `json:"token"`
	}
	if err := Decode(section, &conf); err != nil {
		return nil, err
	}
	token, err := keys.Token("token", conf.TokenSecret, "", conf.Token)
	return spied{s, token.Reveal()}, err
}

func (c spied) Receive(ctx context.Context, _ *Line) error {
	c.began <- c.token
	<-ctx.Done()
	c.ended <- c.token
	return nil
}

func (spied) Knows(string) bool                     { return true }
func (spied) Serve(ctx context.Context, _ *Session) { <-ctx.Done() }
func (s spy) expect(t *testing.T, what, token string) {
	t.Helper()
	from := s.began
	if what == "end" {
		from = s.ended
	}
	select {
	case got := <-from:
		if got != token {
			t.Fatalf("%s of %q, want %q", what, got, token)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s of %q", what, token)
	}
}

// log is a log that can be waited for.
type log struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newLog() *log { return &log{changed: make(chan struct{}, 1)} }

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tell(l.changed)
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) expect(t *testing.T, text string) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		if strings.Contains(l.String(), text) {
			return
		}
		select {
		case <-l.changed:
		case <-deadline:
			t.Fatalf("the log does not say %q:\n%s", text, l.String())
		}
	}
}

// startSpied runs a gateway whose channels are spied on. secrets is where the daemon writes.
func startSpied(t *testing.T) (s spy, dir string, out *log, secrets io.WriteCloser) {
	t.Helper()
	s = spy{make(chan string, 16), make(chan string, 16)}
	dir, out = t.TempDir(), newLog()
	r, w := io.Pipe()
	changed := make(chan struct{}, 1)
	st := newStored(changed)
	ctx, cancel := context.WithCancel(t.Context())
	logger := slog.New(slog.NewTextHandler(out, nil))
	g := &Gateway{
		Log: logger, Kinds: []Kind{{"spy", s.open}, {"other", s.open}}, Agent: gatewaytest.New(), Ref: "agent", File: filepath.Join(dir, "gateway.json"), State: filepath.Join(dir, "state"),
		Env: func(string) (string, bool) { return "", false },
	}
	var wg sync.WaitGroup
	wg.Go(func() { st.read(logger, r) })
	wg.Go(func() { g.Run(ctx, st, changed) })
	t.Cleanup(func() {
		cancel()
		_ = w.Close()
		wg.Wait()
	})
	return s, dir, out, w
}

func put(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "gateway.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func tellSecrets(t *testing.T, w io.Writer, values map[string]string) {
	t.Helper()
	if err := json.NewEncoder(w).Encode(secretsLine{values}); err != nil {
		t.Fatal(err)
	}
}

func TestConfigurationIsFollowed(t *testing.T) {
	s, dir, out, w := startSpied(t)
	tellSecrets(t, w, nil)
	put(t, dir, `{"spy": {"token": "one"}}`)
	s.expect(t, "begin", "one")

	put(t, dir, `{"spy": {"token": "one"`)
	out.expect(t, "gateway.json is refused")
	put(t, dir, `{"spy": {"token": "one", "tokn": 1}}`)
	out.expect(t, `unknown field`)
	put(t, dir, `{"spy": {"token": "two"}, "telepathy": {}}`)
	out.expect(t, "there is no channel")
	put(t, dir, `{"spy":{ "token":   "one"}}`) // the same in other words: it goes on
	put(t, dir, `{"spy": {"token": "two"}}`)
	s.expect(t, "end", "one")
	s.expect(t, "begin", "two")

	// As editors write: another file takes the name.
	if err := os.WriteFile(filepath.Join(dir, "new"), []byte(`{"spy": {"token": "three"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "gateway.json")); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "end", "two")
	s.expect(t, "begin", "three")
	if err := os.Remove(filepath.Join(dir, "gateway.json")); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "end", "three")
	if len(s.began) != 0 {
		t.Error("something else began")
	}
}

func TestSecretsComeBeforeAndAfter(t *testing.T) {
	s, dir, out, w := startSpied(t)
	put(t, dir, `{"spy": {"token_secret": "T"}, "other": {"token": "o"}}`)
	tellSecrets(t, w, nil)
	s.expect(t, "begin", "o") // the other one does not wait
	out.expect(t, "aegis secret set T")
	tellSecrets(t, w, map[string]string{"T": "t1"})
	s.expect(t, "begin", "t1")
	tellSecrets(t, w, map[string]string{"T": "t1", "UNRELATED": "x"})
	if _, err := io.WriteString(w, "no JSON\n"); err != nil {
		t.Fatal(err)
	}
	out.expect(t, "a line of secrets is not understood")
	tellSecrets(t, w, map[string]string{"T": "t2"})
	s.expect(t, "end", "t1")
	s.expect(t, "begin", "t2")
	tellSecrets(t, w, nil)
	s.expect(t, "end", "t2")
	if s := out.String(); s == "" || strings.Contains(s, "t1") {
		t.Error("a secret is logged")
	}
}

func TestAFolderThatComesBack(t *testing.T) {
	s, dir, _, w := startSpied(t)
	tellSecrets(t, w, nil)
	put(t, dir, `{"spy": {"token": "one"}}`)
	s.expect(t, "begin", "one")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.expect(t, "end", "one")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, dir, `{"spy": {"token": "two"}}`)
	s.expect(t, "begin", "two")
}

func TestTrackerMarksWhatIsBelow(t *testing.T) {
	m := newTracker()
	for _, seq := range []int64{3, 5, 8} {
		if err := m.add(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ done, low int64 }{{5, 0}, {7, 0}, {3, 5}, {3, 5}, {8, 8}} {
		if m.done(step.done); m.low() != step.low {
			t.Errorf("after %d the mark is %d, want %d", step.done, m.low(), step.low)
		}
	}
}

func TestTrackerWaitsForRoom(t *testing.T) {
	m := newTracker()
	for seq := range int64(maxUnshown) {
		if err := m.add(t.Context(), seq+1); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.add(ctx, maxUnshown+1); !errors.Is(err, context.Canceled) {
		t.Errorf("there is no end of room: %v", err)
	}
	added := make(chan error)
	go func() { added <- m.add(t.Context(), maxUnshown+1) }()
	m.done(1)
	if err := <-added; err != nil {
		t.Error(err)
	}
}

func TestSessionFiles(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"100", "-200", "100_7", "a", "A", "..", "../x", "", strings.Repeat("x", 300), "a/b", "a\x00"} {
		name := sessionFile(id)
		if other, ok := seen[strings.ToLower(name)]; ok || name != filepath.Base(name) || len(name) > 100 {
			t.Errorf("%q has the file %q, as %q", id, name, other)
		}
		seen[strings.ToLower(name)] = id
	}
}

func TestSessionKeeps(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l := NewLine(slog.New(slog.DiscardHandler), gatewaytest.New(), "agent", "c", dir)
	file := filepath.Join(dir, "s.json")
	s, err := openSession(l, "s", file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Keep("note"); err != nil {
		t.Fatal(err)
	}
	if err := s.Shown(Event{Seq: 7}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep("other"); err != nil {
		t.Fatal(err)
	}
	again, err := openSession(l, "s", file)
	if err != nil {
		t.Fatal(err)
	}
	var note string
	if ok, err := again.Note(&note); !ok || err != nil || note != "other" || again.before != 7 {
		t.Errorf("note %q (%v, %v), shown %d", note, ok, err, again.before)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSession(l, "s", file); err == nil {
		t.Error("half a file is one")
	}
}

func TestPicturesHaveNames(t *testing.T) {
	l := NewLine(slog.New(slog.DiscardHandler), gatewaytest.New(), "agent", "c", t.TempDir())
	for _, name := range []string{"", "..", ".hidden", "a/b", "../../etc/passwd", "a\x00", strings.Repeat("x", 200)} {
		if _, err := l.Picture(t.Context(), api.Picture{Blob: name}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for typ, payload := range map[api.FrameType]string{
		api.FrameDelta: `{"text":"a","reply_to":"m"}`, api.FrameDone: `{"text":"a","images":[{"blob":"b"}]}`, api.FramePresence: `{"state":"idle"}`, "x": `7`,
	} {
		f.Add(string(typ), []byte(payload))
	}
	f.Fuzz(func(t *testing.T, typ string, payload []byte) {
		e, err := decode(api.Frame{Type: api.FrameType(typ), Payload: payload, Seq: 3})
		if err != nil {
			return
		}
		if len(e.Answer.Images) > maxImages {
			t.Fatalf("%d pictures", len(e.Answer.Images))
		}
		if got := merge(merge(nil, e), e); len(got) > 2 || len(got) == 0 {
			t.Fatalf("%d events", len(got))
		}
	})
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"spy":{"token_secret":"A"}}`))
	f.Add([]byte(`{"spy":{"token_secret":["A"]},"x":1}`))
	f.Add([]byte("{\n\n}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		conf, err := parseConfig(b, []Kind{{Name: "spy"}})
		if err != nil {
			return
		}
		for _, section := range conf {
			fingerprint(section, map[string]string{"A": "b"})
		}
	})
}
