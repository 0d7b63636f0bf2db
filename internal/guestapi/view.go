package guestapi

import (
	"net/http"
	"strconv"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func endpointOf(e instance.Expose) api.GuestEndpoint {
	end := api.Endpoint{GuestPort: int(e.Guest), PublicPort: int(e.Public), Protocol: string(e.Protocol)}
	return api.GuestEndpoint{GuestPort: end.GuestPort, PublicPort: end.PublicPort, Protocol: end.Protocol, URL: end.URL()}
}

func endpointsOf(v instance.View) []api.GuestEndpoint {
	out := []api.GuestEndpoint{}
	for _, e := range v.Spec.Expose {
		out = append(out, endpointOf(e))
	}
	return out
}

func childOf(v instance.View) api.Child {
	return api.Child{
		ID: string(v.ID), Handle: v.Spec.Handle, State: v.State.Wire(), Hibernated: v.Hibernated, ParentID: string(v.Spec.Parent),
		Image: v.Spec.Image, Command: v.Spec.Command, CreatedAt: v.Created.UTC(), Endpoints: endpointsOf(v), Why: v.Why,
	}
}

func leaseOf(l instance.Lease) api.LeaseStatus {
	if !l.Held() {
		return api.LeaseStatus{}
	}
	at := l.Expires.UTC()
	return api.LeaseStatus{LeaseHeld: true, LeaseReason: l.Reason, LeaseExpiresAt: &at}
}

// exposeOf reads a port that a guest wants opened.
func (s *Server) exposeOf(e api.GuestExpose) (instance.Expose, error) {
	out := instance.Expose{Protocol: instance.Protocol(e.Protocol), ByGuest: true}
	for _, p := range []struct {
		name string
		from int
		to   *uint16
	}{{"guest_port", e.GuestPort, &out.Guest}, {"public_port", e.PublicPort, &out.Public}} {
		if p.from < 0 || p.from > 65535 {
			return out, fault.New(fault.Invalid, "%s cannot be %d", p.name, p.from).WithHint("ports are 1 to 65535")
		}
		*p.to = uint16(p.from)
	}
	if out.Public == 0 {
		return out, nil
	}
	if out.Public < 1024 {
		return out, fault.New(fault.Denied, "port %d of the host is not for guests", out.Public).WithHint("take one from 1024 on, or none")
	}
	for _, r := range s.conf.Reserved {
		if r == out.Public { // or a guest could pass for what is to listen there
			return out, fault.New(fault.Denied, "port %d of the host is reserved", r).WithHint("take another one, or none")
		}
	}
	return out, nil
}

// answerExposed opens a port of v, which may be the caller or a child, within its budget.
func (s *Server) answerExposed(c *call, v instance.View) error {
	var req api.GuestExpose
	if err := decode(c, &req, false); err != nil {
		return err
	}
	e, err := s.exposeOf(req)
	if err != nil {
		return err
	}
	if e, err = s.conf.Instances.ExposeByGuest(c.ctx(), string(v.ID), e, v.Spec.Rights().MaxExposePorts); err != nil {
		return private(err, req.PublicPort != 0, "the port is taken")
	}
	return answer(c.w, http.StatusOK, endpointOf(e))
}

func (s *Server) answerUnexposed(c *call, v instance.View) error {
	port, err := strconv.ParseUint(c.r.PathValue("port"), 10, 16)
	if err != nil {
		return fault.New(fault.Invalid, "that is not a port")
	}
	if err := s.conf.Instances.UnexposeByGuest(c.ctx(), string(v.ID), uint16(port)); err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, api.Outcome{Status: "unexposed", ID: string(v.ID)})
}

// private keeps what the core says of others from a guest, who has the name or port that it
// chose.
func private(err error, chosen bool, instead string) error {
	if !chosen || fault.KindOf(err) != fault.Conflict {
		return err
	}
	return fault.New(fault.Conflict, "%s, or this instance is about to end", instead).WithHint("choose another, or none")
}
