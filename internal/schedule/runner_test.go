package schedule

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The clock of synctest begins at midnight, UTC, of 2000-01-01.

func TestRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = time.Second
		r, stop := begin(t, w)
		defer stop()
		e := add(t, r, parse(t, "*/10 * * * *", "UTC"), "date")
		time.Sleep(25 * time.Minute)
		w.wantRuns(t, "00:10:00 inst-1 date", "00:20:00 inst-1 date")
		list, next := r.List("inst-1")
		if len(list) != 1 || list[0].Result != "exit 0" || list[0].Exec != "exec-1" || next[0].UTC().Format("15:04") != "00:30" {
			t.Errorf("%+v, %s", list, next)
		}
		w.wantNote(t, "runs as exec-1", 2)
		if err := r.Remove(t.Context(), "inst-2", e.ID); fault.KindOf(err) != fault.NotFound {
			t.Errorf("another's: %v", err)
		}
		if err := r.Remove(t.Context(), "inst-1", e.ID); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		w.wantRuns(t)
		synctest.Wait()
		if len(w.entries) != 0 {
			t.Errorf("stored: %v", w.entries)
		}
	})
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := begin(t, w)
		defer stop()
		add(t, r, Once(time.Now().Add(30*time.Minute)), "date")
		if _, err := r.Add(t.Context(), "inst-1", Once(time.Now().Add(-time.Second)), []string{"date"}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("the past: %v", err)
		}
		if _, err := r.Add(t.Context(), "inst-1", Once(time.Now().Add(time.Hour)), nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("nothing: %v", err)
		}
		time.Sleep(2 * time.Hour)
		w.wantRuns(t, "00:30:00 inst-1 date")
		synctest.Wait()
		if list, _ := r.List("inst-1"); len(list) != 0 || len(w.entries) != 0 {
			t.Errorf("left: %v, %v", list, w.entries)
		}
	})
}

// TestNoOverlap: a schedule that takes longer than it has leaves times out, and says so once a run.
func TestNoOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = 150 * time.Second
		r, stop := begin(t, w)
		defer stop()
		add(t, r, parse(t, "* * * * *", "UTC"), "date")
		time.Sleep(7*time.Minute + time.Second)
		w.wantRuns(t, "00:01:00 inst-1 date", "00:04:00 inst-1 date", "00:07:00 inst-1 date")
		w.wantNote(t, "left out", 2)
		if w.most != 1 {
			t.Errorf("%d at once", w.most)
		}
	})
}

// TestFailures are told, and do not end a schedule.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.err = fault.New(fault.Conflict, "web: the instance is disabled")
		r, stop := begin(t, w)
		defer stop()
		add(t, r, parse(t, "*/10 * * * *", "UTC"), "date")
		time.Sleep(11 * time.Minute)
		w.wantNote(t, "not run: web: the instance is disabled", 1)
		w.mu.Lock()
		w.err, w.status = nil, 3
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.wantRuns(t, "00:20:00 inst-1 date")
		w.wantNote(t, "exec-1 ended: exit 3", 1)
		w.mu.Lock()
		w.err = fault.New(fault.NotFound, "no such instance")
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if list, _ := r.List("inst-1"); len(list) != 0 {
			t.Errorf("of an instance that is gone: %v", list)
		}
	})
}

// TestDowntime: what was due while no daemon ran is done once, if it is young; a run that
// had begun is not repeated.
func TestDowntime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.takes = time.Minute
		r, stop := begin(t, w)
		add(t, r, parse(t, "*/10 * * * *", "UTC"), "often")
		time.Sleep(time.Millisecond) // ids are in the order of time
		add(t, r, parse(t, "5 0 * * *", "UTC"), "daily")
		time.Sleep(5*time.Minute + 10*time.Second - time.Millisecond)
		stop()
		w.wantRuns(t, "00:05:00 inst-1 daily")
		time.Sleep(30 * time.Minute)
		r, stop = begin(t, w)
		time.Sleep(time.Second)
		w.wantRuns(t, "00:35:10 inst-1 often")
		list, _ := r.List("inst-1")
		if list[1].Result != "cut off: the daemon ended" {
			t.Errorf("%+v", list[1])
		}
		time.Sleep(5 * time.Minute)
		stop()
		w.wantRuns(t, "00:40:00 inst-1 often")
		time.Sleep(26 * time.Hour)
		_, stop = begin(t, w)
		time.Sleep(time.Second)
		w.wantRuns(t, "02:40:11 inst-1 often")
		w.wantNote(t, "was missed", 2)
		stop()
	})
}

// TestClockJumps: the host sleeps for some time, and somebody sets its clock.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := begin(t, w)
		defer stop()
		add(t, r, parse(t, "*/30 * * * *", "UTC"), "date")
		time.Sleep(time.Minute)
		w.jump(45 * time.Minute) // it slept; 00:46
		r.Poke()
		w.wantRuns(t, "00:46:00 inst-1 date")
		w.jump(-20 * time.Minute) // 00:26; 00:30 has been dealt with
		r.Poke()
		time.Sleep(30 * time.Minute)
		w.wantRuns(t)
		time.Sleep(5 * time.Minute)
		w.wantRuns(t, "01:00:00 inst-1 date")
		w.jump(-24 * time.Hour)
		r.Poke()
		time.Sleep(30 * time.Minute)
		w.wantRuns(t, "01:30:00 inst-1 date")
	})
}

// TestManyAtOnce: all of a full hour are woken, some at a time, and all run.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := begin(t, w)
		defer stop()
		for i := range 20 {
			if _, err := r.Add(t.Context(), instance.ID(fmt.Sprintf("inst-%d", i)), parse(t, "0 * * * *", "UTC"), []string{"date"}); err != nil {
				t.Fatal(err)
			}
		}
		for range MaxPerInstance - 1 {
			add(t, r, parse(t, "0 0 1 1 *", "UTC"), "date")
		}
		if _, err := r.Add(t.Context(), "inst-1", parse(t, "0 0 1 1 *", "UTC"), []string{"date"}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(w.runs) != 20 {
			t.Errorf("%d ran", len(w.runs))
		}
	})
}

// TestAddedTogether: callers that come together have no more schedules than one has.
func TestAddedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := begin(t, w)
		defer stop()
		var wg sync.WaitGroup
		var added, refused atomic.Int32
		when := parse(t, "* * * * *", "UTC")
		for range 2 * MaxPerInstance {
			wg.Go(func() {
				switch _, err := r.Add(t.Context(), "inst-1", when, []string{"date"}); {
				case err == nil:
					added.Add(1)
				case fault.KindOf(err) == fault.Conflict:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if added.Load() != MaxPerInstance || refused.Load() != MaxPerInstance || len(w.entries) != MaxPerInstance {
			t.Errorf("%d added, %d refused, %d stored", added.Load(), refused.Load(), len(w.entries))
		}
		if len(w.runs) != MaxPerInstance {
			t.Errorf("%d ran", len(w.runs))
		}
	})
}

// TestDeletedInstance: what belonged to it is forgotten with the change of its state.
func TestDeletedInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		r, stop := begin(t, w)
		defer stop()
		add(t, r, parse(t, "*/10 * * * *", "UTC"), "date")
		changes := make(chan instance.Change, 1)
		changes <- instance.Change{ID: "inst-1", To: instance.Deleted}
		close(changes)
		r.Follow(changes)
		time.Sleep(time.Hour)
		w.wantRuns(t)
	})
}

// TestCrashWithinOne: an entry of one moment whose run a dead daemon began is not left behind.
func TestCrashWithinOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		now := time.Now()
		w.entries["sched-1"] = Entry{ID: "sched-1", Instance: "inst-1", When: Once(now), Command: []string{"date"}, Created: now.Add(-time.Hour), Last: now, Ran: now}
		time.Sleep(time.Second)
		_, stop := begin(t, w)
		defer stop()
		w.wantRuns(t)
		if len(w.entries) != 0 {
			t.Errorf("left: %v", w.entries)
		}
	})
}

func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		broken := errors.New("disk full")
		r := New(Config{Store: brokenStore{w, broken}, Instances: w})
		if _, err := r.Add(t.Context(), "inst-1", parse(t, "* * * * *", ""), []string{"date"}); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
		if list, _ := r.List("inst-1"); len(list) != 0 {
			t.Errorf("%v is there", list)
		}
	})
}
