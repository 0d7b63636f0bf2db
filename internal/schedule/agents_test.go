package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

type brokenStore struct {
	*world

	err error
}

func (s brokenStore) AddSchedule(context.Context, Entry) error { return s.err }

func entry(id, schedule string, more string) string {
	return fmt.Sprintf(`{"id":%q,"schedule":%q,"message":"look at the mail"%s}`, id, schedule, more)
}

// sent returns the ids of the frames, and forgets them.
func (w *world) sent() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, f := range w.frames {
		ids = append(ids, f.MsgID)
	}
	w.frames = nil
	return strings.Join(ids, " ")
}

func (w *world) write(file string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files["inst-1"] = file
}

const midnight = 946684800 // of 2000-01-01, UTC

func TestReminders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Local = time.UTC
		w := newWorld()
		w.files["inst-1"] = "[" + entry("mail", "*/10 * * * *", `,"session":"inbox","on_conflict":"skip"`) + "," + entry("off", "* * * * *", `,"enabled":false`) + "]"
		r, stop := begin(t, w)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		w.mu.Lock()
		if len(w.frames) != 1 {
			t.Fatalf("%d frames", len(w.frames))
		}
		f := w.frames[0]
		w.mu.Unlock()
		var m api.UserMessage
		if err := json.Unmarshal(f.Payload, &m); err != nil || m.Text != "look at the mail" || m.User.ID != "cron" {
			t.Errorf("%s, %v", f.Payload, err)
		}
		if f.Type != api.FrameUserMessage || f.Session != (api.Session{Channel: "cron", ID: "inbox"}) || !strings.Contains(string(f.Payload), `"on_conflict":"skip"`) {
			t.Errorf("%+v", f)
		}
		if got, want := w.sent(), fmt.Sprintf("cron-mail-%d", midnight+600); got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
		list, next := r.Reminders("inst-1")
		if len(list) != 2 || next[0].Unix() != midnight+1200 || !next[1].IsZero() {
			t.Errorf("%v, %v", list, next)
		}
		// Over the daemon's downtime what is young is sent, once.
		stop()
		time.Sleep(30 * time.Minute)
		_, stop = begin(t, w)
		defer stop()
		if got, want := w.sent(), fmt.Sprintf("cron-mail-%d", midnight+2400); got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
	})
}

// TestFileChanges: a file is read after each change of its instance's state, and a minute
// later at the latest; a half written one changes nothing.
func TestFileChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Local = time.UTC
		w := newWorld()
		w.files["inst-1"] = ""
		r, stop := begin(t, w)
		defer stop()
		time.Sleep(time.Second)
		w.write("[" + entry("a", "*/2 * * * *", "") + "]")
		changes := make(chan instance.Change, 1)
		changes <- instance.Change{ID: "inst-1", To: instance.Paused}
		close(changes)
		r.Follow(changes)
		synctest.Wait()
		if list, _ := r.Reminders("inst-1"); len(list) != 1 {
			t.Errorf("%v after a pause", list)
		}
		w.write(`[{"id":`)
		time.Sleep(5 * time.Minute)
		w.wantNote(t, "is not a JSON list", 1)
		if got := w.sent(); strings.Count(got, "cron-a-") != 2 {
			t.Errorf("sent %s", got)
		}
		w.write("denied")
		time.Sleep(5 * time.Minute)
		w.wantNote(t, "a link leads out", 1)
		// What is new begins now, and one that has changed too.
		w.write("[" + entry("a", "*/5 * * * *", "") + "," + entry("b", "0 * * * *", "") + "," + entry("c c", "* * * * *", "") + "]")
		time.Sleep(61 * time.Second)
		w.sent()
		w.wantNote(t, "1 entries cannot be used; the first: entry 3", 1)
		time.Sleep(10 * time.Minute)
		if got := w.sent(); strings.Count(got, "cron-a-") != 2 || strings.Contains(got, "cron-b") {
			t.Errorf("sent %s", got)
		}
		w.write("")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(w.marks["inst-1"]) != 0 {
			t.Errorf("marks %v are left", w.marks)
		}
	})
}

func TestReminderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.files["inst-1"] = `{"entries":[` + entry("a", "0 * * * *", "") + `]}`
		w.err = fault.New(fault.Conflict, "the instance is disabled")
		_, stop := begin(t, w)
		defer stop()
		time.Sleep(3*time.Hour + time.Minute)
		w.wantNote(t, "not sent: the instance is disabled", 3)
	})
}

// TestQuietHost: without anything to do, agents' files are read once a minute, and no more.
func TestQuietHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.files["inst-1"] = "[" + entry("a", "0 0 1 1 *", "") + "]"
		_, stop := begin(t, w)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.reads < 55 || w.reads > 62 {
			t.Errorf("%d reads in an hour", w.reads)
		}
	})
}

func TestHostileFiles(t *testing.T) {
	many := "[" + strings.Repeat(entry("x", "* * * * *", "")+",", 200) + entry("y", "* * * * *", "") + "]"
	for name, c := range map[string]struct {
		file      string
		good, bad int
		err       bool
	}{
		"large":      {strings.Repeat(" ", cron.MaxFile+1), 0, 0, true},
		"no list":    {`"x"`, 0, 0, true},
		"null":       {`null`, 0, 0, false},
		"many":       {many[:min(len(many), cron.MaxFile)], 1, 1 + cron.MaxEntries - 1, false},
		"deep":       {strings.Repeat("[", 30000), 0, 0, true},
		"id":         {"[" + entry("../../x", "* * * * *", "") + "]", 0, 1, false},
		"newline":    {"[" + entry("a\nb", "* * * * *", "") + "]", 0, 1, false},
		"session":    {"[" + entry("a", "* * * * *", `,"session":"a b"`) + "]", 0, 1, false},
		"conflict":   {"[" + entry("a", "* * * * *", `,"on_conflict":"a b"`) + "]", 0, 1, false},
		"no message": {`[{"id":"a","schedule":"* * * * *"}]`, 0, 1, false},
		"long":       {`[{"id":"a","schedule":"* * * * *","message":"` + strings.Repeat("x", cron.MaxMessage+1) + `"}]`, 0, 1, false},
		"schedule":   {"[" + entry("a", "TZ=x", "") + "," + entry("b", "@daily", "") + "]", 1, 1, false},
		"types":      {`[{"id":1},{"enabled":"yes"},3,null]`, 0, 4, false},
	} {
		good, bad, err := parseCronFile([]byte(c.file))
		if len(good) != c.good || len(bad) != c.bad || (err != nil) != c.err {
			t.Errorf("%s: %d good, %d bad, %v", name, len(good), len(bad), err)
		}
	}
}

func FuzzCronFile(f *testing.F) {
	f.Add([]byte("[" + entry("a", "* * * * *", `,"enabled":true`) + "]"))
	f.Add([]byte(`{"entries":[{"id":"a","schedule":"TZ=","message":"m"}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		good, _, _ := parseCronFile(b)
		if len(good) > cron.MaxEntries {
			t.Errorf("%d entries", len(good))
		}
		for _, n := range good {
			if !cron.IsName(n.ID) || !cron.IsName(n.Session) || n.Message == "" {
				t.Errorf("%+v", n)
			}
			_ = n.frame(n.When.Next(time.Now()), time.Now())
		}
	})
}
