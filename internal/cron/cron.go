// Package cron is what the schedule of an agent may hold, a file of its workspace: the same
// for the agent, which writes it, and for the host, which reads it as what a stranger
// wrote. Users' schedules have the same expressions.
package cron

import (
	"errors"
	"regexp"
	"strings"
	"time"

	robfig "github.com/robfig/cron/v3"
)

// File is where an agent keeps its entries, in its workspace.
const File = ".aegis/cron.json"

// The limits of a File. Its entries cost the host memory and looks at the clock.
const (
	MaxFile    = 64 << 10 // bytes
	MaxEntries = 64
	MaxMessage = 8 << 10 // bytes
)

// maxExpr bounds an expression, in bytes.
const maxExpr = 256

// Form tells people what an expression is.
const Form = "a schedule is: minute hour day-of-month month day-of-week, as in '*/5 * * * *' or '30 8 * * 1-5'"

var name = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,63}$`)

// IsName reports whether s may be an entry's id, session or on_conflict: they become part
// of ids, and are printed.
func IsName(s string) bool { return name.MatchString(s) }

// Schedule is the times of an expression, in a zone that its Location names.
type Schedule = robfig.SpecSchedule

// Parse reads an expression of five fields (minute, hour, day of month, month, day of
// week), or one of @hourly, @daily, @weekly, @monthly and @yearly. It returns the
// expression with single spaces too. Errors say why it is none, and not that.
func Parse(expr string) (*Schedule, string, error) {
	expr = strings.Join(strings.Fields(expr), " ")
	switch {
	case len(expr) > maxExpr:
		return nil, expr[:maxExpr] + "...", errors.New("it is too long")
	case strings.Contains(expr, "="): // the library has a zone in the expression, and panics on half of one
		return nil, expr, errors.New("the time zone is an option of its own")
	case strings.HasPrefix(expr, "@every"):
		return nil, expr, errors.New("@every has no fixed times")
	}
	s, err := robfig.NewParser(robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor).Parse(expr)
	if err != nil {
		return nil, expr, err
	}
	spec, ok := s.(*robfig.SpecSchedule)
	switch {
	case !ok:
		return nil, expr, errors.New("it has no fixed times")
	case spec.Next(time.Unix(0, 0)).IsZero():
		return nil, expr, errors.New("there is no such day")
	}
	return spec, expr, nil
}
