package logline

import (
	"net/url"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Query reads the parameters of a request for logs.
func Query(v url.Values) (instance.LogQuery, error) {
	q := instance.LogQuery{Tail: -1, Exec: guestproto.ExecID(v.Get("exec_id"))}
	var err error
	for name, set := range map[string]func(string) error{
		"follow": func(s string) (err error) { q.Follow, err = strconv.ParseBool(s); return err },
		"execs":  func(s string) (err error) { q.Execs, err = strconv.ParseBool(s); return err },
		"tail":   func(s string) (err error) { q.Tail, err = strconv.Atoi(s); return err },
		"since":  func(s string) (err error) { q.Since, err = parseSince(s); return err },
	} {
		if s := v.Get(name); s != "" && err == nil {
			if err = set(s); err != nil {
				err = fault.Wrap(fault.Invalid, err, "parameter %s", name)
			}
		}
	}
	return q, err
}

// parseSince reads a point in time: RFC 3339, or how long ago.
func parseSince(s string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	ago, err := config.ParseDuration(s)
	if err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(-ago), nil
}

// sources are the names of log sources on the wire.
var sources = map[instance.LogSource]string{
	instance.FromProgram: "server", instance.FromExec: "exec", instance.FromSystem: "system",
}

// Entry returns a line of an instance's log as it is shown.
func Entry(id instance.ID, l instance.LogLine) api.LogEntry {
	e := api.LogEntry{
		TS: l.Time.UTC(), Stream: streamName(l.Stream), Source: sources[l.Source], InstanceID: string(id), ExecID: string(l.Exec),
	}
	if l.Gap {
		e.TS, e.Source = time.Now().UTC(), "system"
		e.Line = "older lines were dropped: the log has reached its limit"
		return e
	}
	e.Open, e.End = l.Open, l.End
	setLine(&e, l.Text)
	return e
}
