package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/config"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// logs answers GET /v1/instances/{id}/logs.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q, err := logQuery(r.URL.Query())
	if err != nil {
		return err
	}
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	lines, err := s.conf.Instances.Lines(r.Context(), string(v.ID), q)
	if err != nil {
		return err
	}
	out := s.stream(w)
	out.flush()
	for line, err := range lines {
		if err != nil {
			if r.Context().Err() == nil {
				out.send(api.ErrorOf(err))
			}
			return nil
		}
		// Of what is there already nobody waits for the first line; a million answers
		// of one line each take minutes.
		if !out.put(entryOf(v.ID, line)) || q.Follow && !out.flush() {
			return nil
		}
	}
	return nil
}

func logQuery(v url.Values) (instance.LogQuery, error) {
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

func entryOf(id instance.ID, l instance.LogLine) api.LogEntry {
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

// events answers GET /v1/events: changes of state from now on.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	changes, stop := s.conf.Instances.Watch()
	defer stop()
	out := s.stream(w)
	out.flush()
	out.events(r.Context(), changes)
	return nil
}

// events sends changes until there are no more, or the client has gone.
func (l *lineStream) events(ctx context.Context, changes <-chan instance.Change) {
	for {
		select {
		case c, ok := <-changes:
			if !ok || !l.send(api.Event{
				TS: c.Time.UTC(), ID: string(c.ID), Handle: c.Handle, From: c.From.String(), To: c.To.String(), Why: c.Why,
			}) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
