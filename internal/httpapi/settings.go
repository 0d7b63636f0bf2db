package httpapi

import (
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// setInstance answers PATCH /v1/instances/{id}.
func (s *Server) setInstance(w http.ResponseWriter, r *http.Request) error {
	var req api.ChangeRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	c := instance.Settings{Mode: req.Egress, Allow: req.AllowHosts}
	var err error
	if c.PauseAfter, c.StopAfter, err = idleTimes(req.PauseAfterS, req.StopAfterS); err != nil {
		return err
	}
	if req.IdlePolicy != nil {
		policy := instance.IdlePolicy(*req.IdlePolicy)
		c.IdlePolicy = &policy
	}
	v, err := s.conf.Instances.Adjust(r.Context(), r.PathValue("id"), c)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, s.infoOf(v))
	return nil
}

// maxSeconds keeps spans in seconds from overflowing when they become durations.
const maxSeconds = 1 << 31

// idleTimes reads the two spans of an idle policy; nil is not given.
func idleTimes(pause, stop *int64) (pauseAfter, stopAfter *time.Duration, err error) {
	for _, p := range []struct {
		name string
		from *int64
		to   **time.Duration
	}{{"pause_after_s", pause, &pauseAfter}, {"stop_after_s", stop, &stopAfter}} {
		if p.from == nil {
			continue
		}
		if *p.from < 0 || *p.from > maxSeconds {
			return nil, nil, fault.New(fault.Invalid, "%s cannot be %d", p.name, *p.from)
		}
		d := time.Duration(*p.from) * time.Second
		*p.to = &d
	}
	return pauseAfter, stopAfter, nil
}

func trafficOf(t instance.Traffic) api.Traffic {
	return api.Traffic{BytesIn: t.InBytes, BytesOut: t.OutBytes, ConnectionsIn: t.Accepted, ConnectionsOut: t.Opened, Denied: t.Denied}
}

func denialsOf(all []instance.Denial) []api.Denial {
	var out []api.Denial
	for _, d := range all {
		out = append(out, api.Denial{TS: d.Time, Text: d.Text, Allow: d.Allow})
	}
	return out
}
