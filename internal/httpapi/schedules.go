package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/schedule"
)

// Schedules is what the API needs of schedules. *schedule.Runner is one.
type Schedules interface {
	Add(ctx context.Context, id instance.ID, w schedule.When, command []string) (schedule.Entry, error)
	List(id instance.ID) ([]schedule.Entry, []time.Time)
	Reminders(id instance.ID) ([]schedule.Reminder, []time.Time)
	Remove(ctx context.Context, id instance.ID, schedule schedule.ID) error
}

// addSchedule answers POST /v1/instances/{id}/schedules.
func (s *Server) addSchedule(w http.ResponseWriter, r *http.Request) error {
	var req api.ScheduleRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	when, err := whenOf(req)
	if err != nil {
		return err
	}
	e, err := s.conf.Schedules.Add(r.Context(), v.ID, when, req.Command)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusCreated, scheduleOf(e, when.Next(e.Created)))
	return nil
}

func whenOf(req api.ScheduleRequest) (schedule.When, error) {
	switch {
	case req.At == nil:
		return schedule.Parse(req.Schedule, req.TimeZone)
	case req.Schedule != "":
		return schedule.When{}, fault.New(fault.Invalid, "a schedule is an expression or one moment, not both")
	case req.TimeZone != "":
		return schedule.When{}, fault.New(fault.Invalid, "one moment has no time zone of its own")
	}
	return schedule.Once(*req.At), nil
}

// listSchedules answers GET /v1/instances/{id}/schedules.
func (s *Server) listSchedules(w http.ResponseWriter, r *http.Request) error {
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	out := []api.Schedule{}
	entries, next := s.conf.Schedules.List(v.ID)
	for i, e := range entries {
		out = append(out, scheduleOf(e, next[i]))
	}
	reminders, next := s.conf.Schedules.Reminders(v.ID)
	for i, n := range reminders {
		out = append(out, api.Schedule{
			ID: n.ID, Source: api.ScheduleOfAgent, Schedule: n.When.Expr(), Message: n.Message, Session: n.Session, NextAt: timeOf(next[i]),
		})
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

// removeSchedule answers DELETE /v1/instances/{id}/schedules/{schedule_id}.
func (s *Server) removeSchedule(w http.ResponseWriter, r *http.Request) error {
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err != nil {
		return err
	}
	id := r.PathValue("schedule_id")
	if err := s.conf.Schedules.Remove(r.Context(), v.ID, schedule.ID(id)); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Outcome{Status: "deleted", ID: id})
	return nil
}

func scheduleOf(e schedule.Entry, next time.Time) api.Schedule {
	return api.Schedule{
		ID: string(e.ID), Source: api.ScheduleOfUser, Schedule: e.When.Expr(), At: timeOf(e.When.At()), TimeZone: e.When.Zone(),
		Command: e.Command, CreatedAt: timeOf(e.Created), NextAt: timeOf(next),
		LastAt: timeOf(e.Ran), LastExec: e.Exec, LastResult: e.Result,
	}
}
