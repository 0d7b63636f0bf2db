package guestapi

import (
	"context"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/capability"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// ofChild finds the child that a request is about. What is not the caller's child is not
// there.
func (s *Server) ofChild(h func(*call, instance.View) error) handle {
	return func(c *call) error {
		v, err := s.conf.Instances.Child(c.self.ID, c.r.PathValue("id"))
		if err != nil {
			return err
		}
		return h(c, v)
	}
}

// children answers GET /v1/instances.
func (s *Server) children(c *call) error {
	out := []api.Child{}
	for _, v := range s.conf.Instances.Children(c.self.ID) {
		out = append(out, childOf(v))
	}
	return answer(c.w, http.StatusOK, out)
}

// getChild answers GET /v1/instances/{id}.
func (s *Server) getChild(c *call, v instance.View) error {
	return answer(c.w, http.StatusOK, childOf(v))
}

// startChild answers POST /v1/instances/{id}/start. A child that was disabled on the host
// stays so.
func (s *Server) startChild(c *call, v instance.View) error {
	if !v.Enabled {
		return fault.New(fault.Denied, "this child was disabled on the host").WithHint("on the host: aegis instance start --name %s", v.Spec.Handle)
	}
	return s.change(c, v, s.conf.Instances.Start, api.StateRunning)
}

// stopChild answers POST /v1/instances/{id}/stop.
func (s *Server) stopChild(c *call, v instance.View) error {
	return s.change(c, v, s.conf.Instances.Stop, api.StateStopped)
}

// deleteChild answers DELETE /v1/instances/{id}.
func (s *Server) deleteChild(c *call, v instance.View) error {
	return s.change(c, v, s.conf.Instances.Delete, "deleted")
}

// change brings a child into a state. The answer comes when it is there.
func (s *Server) change(c *call, v instance.View, do func(context.Context, string) error, status string) error {
	if err := do(c.ctx(), string(v.ID)); err != nil {
		return err
	}
	out := api.Outcome{Status: status, ID: string(v.ID)}
	if now, err := s.conf.Instances.Get(out.ID); err == nil { // or it is deleted
		out.State = now.State.Wire()
	}
	return answer(c.w, http.StatusOK, out)
}

// exposeChild answers POST /v1/instances/{id}/expose, within what the child may open.
func (s *Server) exposeChild(c *call, v instance.View) error { return s.answerExposed(c, v) }

// unexposeChild answers DELETE /v1/instances/{id}/expose/{port}.
func (s *Server) unexposeChild(c *call, v instance.View) error { return s.answerUnexposed(c, v) }

// forkChild answers POST /v1/instances/{id}/fork: the copies are siblings of the child,
// with its rights.
func (s *Server) forkChild(c *call, v instance.View) error {
	h := holderOf(c.self)
	if _, err := h.Grant(capability.Child{Memory: v.Spec.Memory, VCPUs: v.Spec.VCPUs, Ports: len(v.Spec.Expose)}); err != nil {
		return err
	}
	return s.fork(c, v, instance.ForkSpec{Parent: c.self.ID, Rights: v.Spec.Rights(), Secrets: v.Spec.Secrets})
}

// fork makes copies of v as f says, and as many as the request.
func (s *Server) fork(c *call, v instance.View, f instance.ForkSpec) error {
	var req api.GuestFork
	if err := decode(c, &req, true); err != nil {
		return err
	}
	switch f.Names = req.Names; {
	case len(f.Names) > 0 && req.Count != 0 && req.Count != len(f.Names):
		return fault.New(fault.Invalid, "%d names for %d forks", len(f.Names), req.Count)
	case req.Count < 0 || req.Count > instance.MaxForks || len(f.Names) > instance.MaxForks:
		return fault.New(fault.Invalid, "so many forks cannot be made at a time").WithHint("make 1 to %d", instance.MaxForks)
	case len(f.Names) == 0:
		f.Names = make([]string, max(1, req.Count))
	}
	// The client of a machine that was copied may be cut off by that: what was begun is done.
	forks, _, err := s.conf.Instances.Fork(context.WithoutCancel(c.ctx()), string(v.ID), f)
	if err != nil {
		return private(err, len(req.Names) > 0, "a name is taken")
	}
	out := []api.Child{}
	for _, k := range forks {
		out = append(out, childOf(k))
	}
	return answer(c.w, http.StatusCreated, out)
}
