package session

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/history"
)

var key = api.Session{Channel: "host", ID: "default"}

func open(t *testing.T, dir string, w Window) *Session {
	t.Helper()
	s, err := Open(dir, key, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func user(id string, seq int64, text string) Record {
	return Record{
		Taken:   &Taken{Type: api.FrameUserMessage, MsgID: id, Seq: seq},
		Message: &history.Message{Role: history.User, Text: text},
	}
}

func add(t *testing.T, s *Session, recs ...Record) {
	t.Helper()
	for _, r := range recs {
		if err := s.Append(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatWasAppendedIsThereAgain(t *testing.T) {
	dir := t.TempDir()
	add(t, open(t, dir, Window{}), user("m1", 7, "hello"), Record{Message: &history.Message{Role: history.Assistant, Text: "hi"}}, Record{End: "m1"}, user("m2", 9, "again"))
	s := open(t, dir, Window{})
	if ms := s.Messages(); len(ms) != 3 || ms[1].Text != "hi" {
		t.Errorf("messages: %+v", ms)
	}
	if got, n := s.Unanswered(); got == nil || got.MsgID != "m2" || n != 0 {
		t.Errorf("unanswered: %+v, %d", got, n)
	}
	add(t, s, Record{Resumed: "m2"})
	if _, n := open(t, dir, Window{}).Unanswered(); n != 1 {
		t.Errorf("taken up %d times, want 1", n)
	}
	for _, c := range []struct {
		id   string
		seq  int64
		want bool
	}{{"m2", 9, true}, {"m1", 7, true}, {"m3", 10, false}, {"other", 3, false}} {
		if got := s.Knows(api.Frame{MsgID: c.id, Seq: c.seq}); got != c.want {
			t.Errorf("Knows(%s, %d) = %v", c.id, c.seq, got)
		}
	}
}

// TestCutAnywhere cuts a file after every byte: whole records are there, the torn one is
// not, and the next record can be read.
func TestCutAnywhere(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Window{})
	add(t, s, user("m1", 1, "one"), Record{Message: &history.Message{Role: history.Assistant, Text: "two"}}, Record{End: "m1"})
	path := filepath.Join(dir, FileName(key))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, key, Window{})
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Count(whole[:n], []byte("\n"))
		if got, want := len(s.Messages()), min(lines, 2); got != want {
			t.Fatalf("cut at %d: %d messages, want %d", n, got, want)
		}
		add(t, s, user("m2", 2, "three"))
		_ = s.Close()
		if s, err = Open(dir, key, Window{}); err != nil {
			t.Fatal(err)
		}
		if got := s.Messages(); len(got) != min(lines, 2)+1 || got[len(got)-1].Text != "three" || s.Unreadable() != 0 {
			t.Fatalf("cut at %d, then written: %+v, %d unreadable", n, got, s.Unreadable())
		}
		_ = s.Close()
	}
}

func TestDamagedLineCostsItselfOnly(t *testing.T) {
	dir := t.TempDir()
	add(t, open(t, dir, Window{}), user("m1", 1, "one"))
	path := filepath.Join(dir, FileName(key))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(f, "nonsense\n{\"message\":{\"role\":\"system\"}}\n%s\n", strings.Repeat("x", maxLine+10))
	_ = f.Close()
	s := open(t, dir, Window{})
	add(t, s, user("m2", 2, "two"))
	if s = open(t, dir, Window{}); len(s.Messages()) != 2 || s.Unreadable() != 3 {
		t.Errorf("%d messages, %d unreadable", len(s.Messages()), s.Unreadable())
	}
}

func TestFailedAppendLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Window{})
	add(t, s, user("m1", 1, "one"))
	long := user("m2", 2, strings.Repeat("x", maxLine))
	if err := s.Append(long); err == nil {
		t.Error("a record over the limit is written")
	}
	if len(s.Messages()) != 1 || s.Knows(api.Frame{MsgID: "m2", Seq: 2}) {
		t.Error("a record that was not written is part of the session")
	}
}

func TestWindowBoundsMemory(t *testing.T) {
	dir := t.TempDir()
	w := Window{Chars: 1000, Turns: 5}
	s := open(t, dir, w)
	for i := range 200 {
		add(t, s, user(fmt.Sprint("m", i), int64(i+1), strings.Repeat("x", 50)), Record{Message: &history.Message{Role: history.Assistant, Text: "ok"}})
	}
	for _, s := range []*Session{s, open(t, dir, w)} {
		if s.chars > 2100 || len(s.messages) < 10 || s.messages[0].Role != history.User {
			t.Errorf("%d characters in %d messages", s.chars, len(s.messages))
		}
		if !s.Knows(api.Frame{MsgID: "m199", Seq: 200}) {
			t.Error("the last frame is forgotten")
		}
	}
}

func TestFileNames(t *testing.T) {
	seen := map[string]api.Session{}
	for _, k := range []api.Session{
		{Channel: "host", ID: "default"},
		{Channel: "telegram", ID: "-100_2"},
		{Channel: "a_b", ID: "c"},
		{Channel: "a", ID: "b_c"},
		{Channel: "..", ID: "../../etc/passwd"},
		{Channel: "", ID: ""},
		{Channel: "x", ID: "%41"},
		{Channel: "x", ID: "A"},
		{Channel: "ü", ID: "\x00\n"},
	} {
		name := FileName(k)
		if strings.ContainsAny(name, "/\x00\n") || strings.HasPrefix(name, ".") {
			t.Errorf("%+v is called %q", k, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%+v and %+v are both called %q", k, other, name)
		}
		seen[name] = k
		if back, ok := ParseFileName(name); !ok || back != k {
			t.Errorf("%q is of %+v, %v; want %+v", name, back, ok, k)
		}
	}
	if got := FileName(key); got != "host_default.jsonl" {
		t.Errorf("got %q", got)
	}
	long := FileName(api.Session{Channel: "x", ID: strings.Repeat("y", 1000)})
	if len(long) > 200 || long == FileName(api.Session{Channel: "x", ID: strings.Repeat("y", 1001)}) {
		t.Errorf("a long id is called %q", long)
	}
}

func TestRecent(t *testing.T) {
	dir := t.TempDir()
	for i, id := range []string{"old", "mid", "new"} {
		path := filepath.Join(dir, FileName(api.Session{Channel: "host", ID: id}))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(time.Duration(i-3) * time.Hour)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Recent(dir, time.Now().Add(-150*time.Minute), 8)
	if err != nil || len(got) != 2 || got[0].ID != "new" || got[1].ID != "mid" {
		t.Errorf("recent: %+v, %v", got, err)
	}
	if got, err := Recent(filepath.Join(dir, "no"), time.Time{}, 8); err != nil || got != nil {
		t.Errorf("recent in no folder: %+v, %v", got, err)
	}
}

// FuzzOpen: whatever a file holds, opening it neither fails nor panics, and what is there
// makes a valid conversation.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"ts":"2026-01-02T03:04:05Z","taken":{"type":"user.message","msg_id":"m","seq":1},"message":{"role":"user","text":"x"}}` + "\n"))
	f.Add([]byte(`{"message":{"role":"assistant","calls":[{"id":"1","name":"bash","args":{}}]}}` + "\n" + `{"message":{"role":"tool","call_id":"1"`))
	f.Add([]byte("\n\n{}\nnull\n[]\n{\"message\":{\"role\":\"tool\",\"call_id\":\"2\"}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName(key)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, key, Window{Chars: 500, Turns: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close() //nolint:errcheck // a test's file
		add(t, s, user("m", 1, "hello"))
		if err := history.Check(history.Repair(s.Messages())); err != nil {
			t.Fatal(err)
		}
	})
}
