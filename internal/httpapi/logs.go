package httpapi

import (
	"context"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logline"
)

// logs answers GET /v1/instances/{id}/logs.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	q, err := logline.Query(r.URL.Query())
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
		if !out.put(logline.Entry(v.ID, line)) || q.Follow && !out.flush() {
			return nil
		}
	}
	return nil
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
