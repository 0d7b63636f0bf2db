package cli

import (
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 3, 4, 15, 30, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"+10m":                 now.Add(10 * time.Minute),
		"+90":                  now.Add(90 * time.Second),
		"+0":                   now.Add(time.Second),
		"16:00":                time.Date(2026, 3, 4, 16, 0, 0, 0, time.Local),
		"15:30":                time.Date(2026, 3, 5, 15, 30, 0, 0, time.Local),
		"2030-01-02 15:04":     time.Date(2030, 1, 2, 15, 4, 0, 0, time.Local),
		"2030-01-02T15:04:05":  time.Date(2030, 1, 2, 15, 4, 5, 0, time.Local),
		"2030-01-02T15:04:05Z": time.Date(2030, 1, 2, 15, 4, 5, 0, time.UTC),
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "+", "+soon", "tomorrow", "25:00", "2030-02-30 10:00"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q is %s", text, got)
		}
	}
}

func TestSchedulesText(t *testing.T) {
	at := time.Date(2026, 3, 4, 15, 30, 0, 0, time.Local)
	got := schedulesText([]api.Schedule{
		{ID: "sched-1", Source: api.ScheduleOfUser, Schedule: "0 * * * *", TimeZone: "UTC", NextAt: &at, Command: []string{"sh", "-c", "date; true"}},
		{ID: "sched-2", Source: api.ScheduleOfUser, At: &at, LastAt: &at, Command: []string{"true"}},
		{ID: "mail", Source: api.ScheduleOfAgent, Schedule: "0 8 * * *", Message: "look"},
	})
	want := `ID       SCHEDULE       NEXT                 LAST                 RESULT   COMMAND
sched-1  0 * * * * UTC  2026-03-04 15:30:00  -                    -        sh -c 'date; true'
sched-2  once           -                    2026-03-04 15:30:00  running  true
mail     0 8 * * *      -                    -                    -        message "look"
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
