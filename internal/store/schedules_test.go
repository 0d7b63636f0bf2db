package store

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/schedule"
)

func cron(t *testing.T, expr, zone string) schedule.When {
	t.Helper()
	w, err := schedule.Parse(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestSchedules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, path)
	r := record("a")
	if err := s.SaveInstance(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	a := schedule.Entry{ID: "sched-a", Instance: r.ID, When: cron(t, "*/5 * * * 1-5", "Europe/Berlin"), Command: []string{"echo", "ü\n"}, Created: now, Last: now}
	b := schedule.Entry{ID: "sched-b", Instance: r.ID, When: schedule.Once(now.Add(time.Hour)), Command: []string{"true"}, Created: now, Last: now}
	for _, e := range []schedule.Entry{b, a} {
		if err := s.AddSchedule(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	stranger := a
	stranger.ID, stranger.Instance = "sched-c", "inst-gone"
	if err := s.AddSchedule(t.Context(), stranger); fault.KindOf(err) != fault.NotFound {
		t.Errorf("of no instance: %v", err)
	}
	a.Last, a.Ran, a.Exec, a.Result = now.Add(time.Minute), now.Add(time.Minute), "exec-1", "exit 3"
	if err := s.UpdateSchedule(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	stranger.Instance = r.ID
	if err := s.UpdateSchedule(t.Context(), stranger); err != nil {
		t.Error(err)
	}
	_ = s.Close()
	s = open(t, path)
	got, err := s.LoadSchedules(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, want := range []schedule.Entry{a, b} {
		if got[i].When.String() != want.When.String() || !got[i].When.Next(now).Equal(want.When.Next(now)) {
			t.Errorf("%s is at %s, want %s", want.ID, got[i].When, want.When)
		}
		got[i].When = want.When // functions of the library do not compare
		if !reflect.DeepEqual(got[i], want) {
			t.Errorf("loaded\n%+v, want\n%+v", got[i], want)
		}
	}
	for range 2 {
		if err := s.DeleteSchedule(t.Context(), b.ID); err != nil {
			t.Error(err)
		}
	}
	// What is damaged does not take the rest with it.
	if _, err := s.db.ExecContext(t.Context(), "INSERT INTO schedules SELECT 'sched-d', instance_id, 'x', zone, at, command, created_at, last, ran_at, exec_id, result FROM schedules"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadSchedules(t.Context()); err == nil || len(got) != 1 {
		t.Errorf("with a damaged row: %+v, %v", got, err)
	}
	// All goes with the instance.
	if err := s.DeleteInstance(t.Context(), r.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := s.LoadSchedules(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("of an instance that is gone: %+v, %v", got, err)
	}
}

func TestMarks(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	r := record("a")
	if err := s.SaveInstance(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []map[string]time.Time{{"x": time.Now().UTC(), "y": {}}, {}} {
		if err := s.SaveMarks(t.Context(), r.ID, want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.LoadMarks(t.Context(), r.ID); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	for _, id := range []instance.ID{r.ID, "inst-never"} {
		if err := s.DeleteInstance(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if err := s.SaveMarks(t.Context(), id, map[string]time.Time{"x": time.Now()}); err != nil {
			t.Error(err)
		}
		if got, err := s.LoadMarks(t.Context(), id); err != nil || got != nil {
			t.Errorf("%s has %v, %v", id, got, err)
		}
	}
}
