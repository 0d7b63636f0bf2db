package schedule

import (
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func parse(t *testing.T, expr, zone string) When {
	t.Helper()
	w, err := Parse(expr, zone)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestNext(t *testing.T) {
	const berlin, saoPaulo, lordHowe = "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"
	for _, c := range []struct{ expr, zone, from, want string }{
		{"*/5 * * * *", "UTC", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"},
		{"*/5 * * * *", "UTC", "2026-01-01T00:04:59Z", "2026-01-01T00:05:00Z"},
		{"0 0 29 2 *", "UTC", "2025-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
		{"0 9 * * 1-5", "UTC", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"}, // Friday, Monday
		{"@daily", "UTC", "2026-01-02T09:00:00Z", "2026-01-03T00:00:00Z"},
		{"30 8 * * *", berlin, "2026-01-02T09:00:00Z", "2026-01-03T07:30:00Z"},
		{"30 8 * * *", berlin, "2026-07-02T09:00:00Z", "2026-07-03T06:30:00Z"},
		// 2026-03-29 02:00 becomes 03:00, at 01:00 UTC.
		{"30 2 * * *", berlin, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"30 2 * * *", berlin, "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		{"0 3 * * *", berlin, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"*/20 * * * *", berlin, "2026-03-29T00:40:00Z", "2026-03-29T01:00:00Z"},
		{"30 * * * *", berlin, "2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"},
		// 2026-10-25 03:00 becomes 02:00, at 01:00 UTC.
		{"30 2 * * *", berlin, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"30 2 * * *", berlin, "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"30 2 * * *", berlin, "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z"},
		{"0 3 * * *", berlin, "2026-10-24T12:00:00Z", "2026-10-25T02:00:00Z"},
		{"30 * * * *", berlin, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"},
		// Midnight of 2018-11-04 does not exist there.
		{"0 0 * * *", saoPaulo, "2018-11-03T12:00:00Z", "2018-11-04T03:00:00Z"},
		{"0 12 4 11 *", saoPaulo, "2018-11-03T12:00:00Z", "2018-11-04T14:00:00Z"},
		// An offset changes by half an hour there: 02:00 becomes 02:30 on 2026-10-04.
		{"15 2 * * *", lordHowe, "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"},
	} {
		w := parse(t, c.expr, c.zone)
		if got := w.Next(at(t, c.from)); !got.Equal(at(t, c.want)) {
			t.Errorf("%s after %s is %s, want %s", w, c.from, got.UTC().Format(time.RFC3339), c.want)
		}
	}
}

func TestBadExpressions(t *testing.T) {
	for _, expr := range []string{
		"", "* * * *", "* * * * * *", "60 * * * *", "x", "@every 5m", "TZ=UTC", "CRON_TZ=Europe/Berlin * * * * *", "0 0 30 2 *",
		"*/0 * * * *", "5-1 * * * *", "@reboot", string(make([]byte, 1000)),
	} {
		if w, err := Parse(expr, ""); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v, %v", expr, w, err)
		}
	}
	if _, err := Parse("* * * * *", "Europe/Atlantis"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("zone: %v", err)
	}
}

// TestLook: what is due and what is missed, by the rules of the package's documentation.
func TestLook(t *testing.T) {
	for name, c := range map[string]struct{ expr, last, now, due, missed, next string }{
		"not yet":            {"*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:03:00Z", "", "", "2026-01-01T00:05:00Z"},
		"now":                {"*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z", "2026-01-01T00:05:00Z", "", "2026-01-01T00:10:00Z"},
		"slept over several": {"*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:33:00Z", "2026-01-01T00:30:00Z", "", "2026-01-01T00:35:00Z"},
		"an hour":            {"0 8 * * *", "2026-01-01T00:00:00Z", "2026-01-01T09:00:00Z", "2026-01-01T08:00:00Z", "", "2026-01-02T08:00:00Z"},
		"over an hour":       {"0 8 * * *", "2026-01-01T00:00:00Z", "2026-01-01T09:00:01Z", "", "2026-01-01T08:00:00Z", "2026-01-02T08:00:00Z"},
		"off for days":       {"*/5 * * * *", "2026-01-01T00:00:00Z", "2026-01-08T00:02:00Z", "2026-01-08T00:00:00Z", "2026-01-01T00:05:00Z", "2026-01-08T00:05:00Z"},
		"put back a little":  {"*/5 * * * *", "2026-01-01T00:30:00Z", "2026-01-01T00:02:00Z", "", "", "2026-01-01T00:35:00Z"},
		"put back by years":  {"*/5 * * * *", "2036-01-01T00:30:00Z", "2026-01-01T00:02:00Z", "", "", "2026-01-01T00:05:00Z"},
		"put forward":        {"0 8 * * *", "2026-01-01T08:00:00Z", "2026-02-01T08:30:00Z", "2026-02-01T08:00:00Z", "2026-01-02T08:00:00Z", "2026-02-02T08:00:00Z"},
	} {
		due, missed, next := parse(t, c.expr, "UTC").look(at(t, c.last), at(t, c.now))
		if !due.Equal(at(t, c.due)) || !missed.Equal(at(t, c.missed)) || !next.Equal(at(t, c.next)) {
			t.Errorf("%s: due %s, missed %s, next %s", name, due, missed, next)
		}
	}
	once := Once(at(t, "2026-01-01T08:00:00Z"))
	created := at(t, "2026-01-01T07:00:00Z")
	if due, missed, next := once.look(created, at(t, "2026-01-01T08:59:00Z")); due.IsZero() || !missed.IsZero() || !next.IsZero() {
		t.Errorf("once, a little late: %s, %s, %s", due, missed, next)
	}
	if due, missed, next := once.look(created, at(t, "2026-01-01T10:00:00Z")); !due.IsZero() || missed.IsZero() || !next.IsZero() {
		t.Errorf("once, too late: %s, %s, %s", due, missed, next)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"*/5 * * * *", "0 0 29 2 *", "TZ=", "@daily", "1-5/2,7 */3 1 jan mon", "* * * * 7"} {
		f.Add(s, int64(1_700_000_000))
	}
	f.Fuzz(func(t *testing.T, expr string, unix int64) {
		w, err := Parse(expr, "Europe/Berlin")
		if err != nil {
			return
		}
		from := time.Unix(unix%(1<<33), 0)
		if next := w.Next(from); !next.IsZero() && !next.After(from) {
			t.Errorf("%q: after %s comes %s", expr, from, next)
		}
	})
}
