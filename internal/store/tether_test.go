package store

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

var keepAll = message.Keep{Frames: 1 << 40, Bytes: 1 << 40}

// made stores a new instance.
func made(t *testing.T, s *Store, handle string) instance.Record {
	t.Helper()
	r := record(handle)
	if err := s.SaveInstance(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r
}

func entry(id instance.ID, msgID string, ingress bool) message.Entry {
	return message.Entry{Instance: string(id), Ingress: ingress, Frame: api.Frame{
		V: 1, Type: api.FrameDone, TS: time.Now().UTC(), Session: api.Session{Channel: "host", ID: "s"}, MsgID: msgID,
		Payload: json.RawMessage(`{"text":"ü"}`),
	}}
}

func appendTo(t *testing.T, s *Store, keep message.Keep, entries ...message.Entry) []message.Stored {
	t.Helper()
	out, err := s.AppendFrames(t.Context(), entries, keep)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func seqs(t *testing.T, s *Store, id instance.ID) (out []int64) {
	t.Helper()
	page, err := s.Frames(t.Context(), string(id), message.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range page.Frames {
		out = append(out, f.Seq)
	}
	return out
}

func TestFrames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, path)
	a, b := made(t, s, "a"), made(t, s, "b")
	first := entry(a.ID, "m1", true)
	got := appendTo(t, s, keepAll, first, entry(b.ID, "m1", true), entry(a.ID, "m1", false), entry(a.ID, "m1", true), entry(a.ID, "m2", true),
		entry("inst-nobody", "m1", true))
	for i, want := range []message.Stored{{Seq: 1}, {Seq: 1}, {Seq: 2}, {Seq: 1, Known: true}, {Seq: 3}} {
		if got[i] != want {
			t.Errorf("entry %d: %+v, want %+v", i, got[i], want)
		}
	}
	if fault.KindOf(got[5].Err) != fault.NotFound {
		t.Errorf("of no instance: %+v", got[5])
	}
	_ = s.Close()
	s = open(t, path)
	page, err := s.Frames(t.Context(), string(a.ID), message.Query{Limit: 1})
	if err != nil || len(page.Frames) != 1 || page.Covered != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	first.Frame.Seq = 1
	if f := page.Frames[0]; fmt.Sprintf("%+v", f) != fmt.Sprintf("%+v", first.Frame) {
		t.Errorf("read %+v, want %+v", f, first.Frame)
	}
	untaken := func() (out []int64) {
		frames, err := s.Untaken(t.Context(), string(a.ID), 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			out = append(out, f.Seq)
		}
		return out
	}
	if got := untaken(); !slices.Equal(got, []int64{1, 3}) {
		t.Errorf("untaken: %v", got)
	}
	appendTo(t, s, keepAll, message.Entry{Instance: string(a.ID), Taken: 1})
	appendTo(t, s, keepAll, message.Entry{Instance: string(a.ID), Taken: 0})
	if got := untaken(); !slices.Equal(got, []int64{3}) {
		t.Errorf("untaken: %v", got)
	}
	all, err := s.LoadTethers(t.Context())
	if err != nil || len(all) != 2 || all[0].Seq+all[1].Seq != 4 || all[0].Waiting+all[1].Waiting != 2 || time.Since(all[0].Last) > time.Minute {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestTrim: the oldest frames go by count, size and age; what the agent has not taken
// stays, and numbers go on.
func TestTrim(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	a := made(t, s, "a")
	for i := range 10 {
		appendTo(t, s, message.Keep{Frames: 4, Bytes: 1 << 20}, entry(a.ID, strconv.Itoa(i), i == 2))
	}
	if got := seqs(t, s, a.ID); !slices.Equal(got, []int64{3, 7, 8, 9, 10}) {
		t.Errorf("by count: %v", got)
	}
	appendTo(t, s, keepAll, message.Entry{Instance: string(a.ID), Taken: 3})
	size := int64(len(`{"text":"ü"}`))
	appendTo(t, s, message.Keep{Frames: 1 << 40, Bytes: 2 * size}, entry(a.ID, "bytes", false))
	if got := seqs(t, s, a.ID); got[len(got)-1] != 11 || int64(len(got))*size > 2*size {
		t.Errorf("by size: %v", got)
	}
	var bytes int64
	if err := s.db.QueryRowContext(t.Context(), "SELECT bytes FROM tethers").Scan(&bytes); err != nil || bytes != size*int64(len(seqs(t, s, a.ID))) {
		t.Errorf("%d bytes are counted, %v", bytes, err)
	}
	if _, err := s.db.ExecContext(t.Context(), "UPDATE frames SET stored_at = stored_at - 100000"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, s, message.Keep{Frames: 1 << 40, Bytes: 1 << 40, Age: 99 * time.Second}, entry(a.ID, "age", false))
	if got := seqs(t, s, a.ID); !slices.Equal(got, []int64{12}) {
		t.Errorf("by age: %v", got)
	}
}

// TestTetherGoes: all of it goes with the instance. A copy begins behind every number that
// its agent may know, also of instances that are no more; another instance with 1.
func TestTetherGoes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	a := made(t, s, "a")
	for i := range 5 {
		appendTo(t, s, keepAll, entry(a.ID, strconv.Itoa(i), true))
	}
	if n, err := s.RaiseWatermark(t.Context(), string(a.ID), "ui", 99); err != nil || n != 5 {
		t.Errorf("watermark %d, %v", n, err)
	}
	if err := s.DeleteInstance(t.Context(), a.ID); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"tethers", "frames", "watermarks"} {
		var n int
		if err := s.db.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil || n != 0 {
			t.Errorf("%s has %d rows, %v", table, n, err)
		}
	}
	c := record("copy")
	c.Copy = true
	for range 2 { // it is saved often
		if err := s.SaveInstance(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if got := seqs(t, s, c.ID); len(got) != 0 {
		t.Errorf("the copy has %v", got)
	}
	b := made(t, s, "b")
	got := appendTo(t, s, keepAll, entry(c.ID, "m", true), entry(b.ID, "m", true))
	if got[0].Seq != 6 || got[1].Seq != 1 {
		t.Errorf("%+v", got)
	}
}

func TestPageIsBounded(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	a := made(t, s, "a")
	for i := range 3 {
		e := entry(a.ID, strconv.Itoa(i), false)
		e.Frame.Payload = slices.Repeat([]byte("1"), message.MaxPayload)
		appendTo(t, s, keepAll, e)
	}
	page, err := s.Frames(t.Context(), string(a.ID), message.Query{Limit: 10})
	if err != nil || len(page.Frames) != 2 || page.Covered != 2 {
		t.Errorf("%d frames, covered %d, %v", len(page.Frames), page.Covered, err)
	}
}
