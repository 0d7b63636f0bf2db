package schedule

import (
	"time"
	_ "time/tzdata" // or a host without zone files would know only its own

	"github.com/xfeldman/aegisvm/internal/cron"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// Grace is how old a time that was missed may be and still count.
const Grace = time.Hour

// When is the times of a schedule: one, or those of a cron expression. The zero When has
// none.
type When struct {
	at   time.Time
	expr string
	zone string
	cron *cron.Schedule
	loc  *time.Location
}

// Once is the one moment t.
func Once(t time.Time) When { return When{at: t.Truncate(time.Second)} }

// Parse reads a cron expression of five fields (minute, hour, day of month, month, day of
// week), or one of @hourly, @daily, @weekly, @monthly and @yearly. The zone is a name of
// the IANA database, or "" for the host's. Errors are fault.Invalid.
func Parse(expr, zone string) (When, error) {
	spec, expr, err := cron.Parse(expr)
	if err != nil {
		return When{}, fault.New(fault.Invalid, "schedule %q: %v", expr, err).WithHint("%s", cron.Form)
	}
	w := When{expr: expr, zone: zone, loc: time.Local, cron: spec}
	if zone != "" {
		if w.loc, err = time.LoadLocation(zone); err != nil {
			return When{}, fault.New(fault.Invalid, "there is no time zone %q", zone).WithHint("name one as in Europe/Berlin, or UTC")
		}
	}
	return w, nil
}

// Expr returns the cron expression, "" of one moment.
func (w When) Expr() string { return w.expr }

// Zone returns the name of the time zone, "" for the host's.
func (w When) Zone() string { return w.zone }

// At returns the one moment, zero of an expression.
func (w When) At() time.Time { return w.at }

// String returns the schedule as people write it.
func (w When) String() string {
	switch {
	case w.cron == nil:
		return w.at.Format(time.RFC3339)
	case w.zone == "":
		return w.expr
	}
	return w.expr + " " + w.zone
}

// Next returns the first time after t; zero is none.
func (w When) Next(t time.Time) time.Time {
	if w.cron == nil {
		if w.at.After(t) {
			return w.at
		}
		return time.Time{}
	}
	// Zones change their offset some times a year. Between two changes the library is
	// asked as if there were none; the changes are dealt with here.
	everyHour := w.cron.Hour&(1<<24-1) == 1<<24-1
	for from := t.Truncate(time.Second).Add(time.Second); ; {
		start, end := from.In(w.loc).ZoneBounds()
		_, offset := from.In(w.loc).Zone()
		if again := repeated(start); !everyHour && from.Before(again) {
			from = again
			continue
		}
		at := w.inOffset(offset, from)
		if at.IsZero() || end.IsZero() || at.Before(end) {
			return at.In(w.loc)
		}
		if _, later := end.Zone(); !everyHour && at.Before(end.Add(time.Duration(later-offset)*time.Second)) {
			return end // the zone's clock skips it
		}
		from = end
	}
}

// repeated returns when the clock of a zone that begins a new offset at start shows what it
// has not shown before; zero if it skips or nothing was before.
func repeated(start time.Time) time.Time {
	if start.IsZero() {
		return start
	}
	_, before := start.Add(-time.Second).Zone()
	_, offset := start.Zone()
	return start.Add(time.Duration(max(0, before-offset)) * time.Second)
}

// inOffset returns the first time from t on, of a zone without changes.
func (w When) inOffset(offset int, t time.Time) time.Time {
	s := *w.cron
	s.Location = time.FixedZone("", offset)
	return s.Next(t.Add(-time.Second))
}

// look says what the times up to last having been dealt with means at now: which time is
// due, which was missed and is too old, and when to look again. Zero is none.
func (w When) look(last, now time.Time) (due, missed, next time.Time) {
	last = sane(last, now)
	from := last
	if oldest := now.Add(-Grace); from.Before(oldest) {
		if first := w.Next(from); !first.IsZero() && first.Before(oldest) {
			missed = first
		}
		from = oldest.Add(-time.Second)
	}
	for t := w.Next(from); !t.IsZero() && !t.After(now); t = w.Next(t) {
		due = t
	}
	next = last
	for _, t := range []time.Time{now, due} {
		if t.After(next) {
			next = t
		}
	}
	return due, missed, w.Next(next)
}

// sane returns the last time that was dealt with, or now if the clock was wrong then.
func sane(last, now time.Time) time.Time {
	if last.After(now.Add(Grace)) {
		return now
	}
	return last
}
