package httpapi

import (
	"net/http"
	"net/netip"
	"strconv"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// expose answers POST /v1/instances/{id}/expose.
func (s *Server) expose(w http.ResponseWriter, r *http.Request) error {
	var req api.ExposeRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	e, err := exposeOf(req)
	if err != nil {
		return err
	}
	if e, err = s.conf.Instances.Expose(r.Context(), r.PathValue("id"), e); err != nil {
		return err
	}
	end := endpointOf(e)
	s.answer(w, r, http.StatusOK, api.Exposed{Endpoint: end, URL: end.URL()})
	return nil
}

// unexpose answers DELETE /v1/instances/{id}/expose/{guest_port}.
func (s *Server) unexpose(w http.ResponseWriter, r *http.Request) error {
	text := r.PathValue("guest_port")
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fault.New(fault.Invalid, "%q is not a port", text)
	}
	if err := s.conf.Instances.Unexpose(r.Context(), r.PathValue("id"), uint16(port)); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Outcome{Status: "unexposed"})
	return nil
}

func exposeOf(req api.ExposeRequest) (instance.Expose, error) {
	e := instance.Expose{Protocol: instance.Protocol(req.Protocol)}
	for _, p := range []struct {
		name string
		from int
		to   *uint16
	}{{"port", req.Port, &e.Guest}, {"public_port", req.PublicPort, &e.Public}} {
		if p.from < 0 || p.from > 65535 {
			return e, fault.New(fault.Invalid, "%s cannot be %d", p.name, p.from).WithHint("ports are 1 to 65535")
		}
		*p.to = uint16(p.from)
	}
	if req.Bind != "" && req.Bind != api.Loopback {
		var err error
		if e.Bind, err = netip.ParseAddr(req.Bind); err != nil {
			return e, fault.New(fault.Invalid, "%q is not an address to listen on", req.Bind).WithHint("as in: --bind 0.0.0.0")
		}
	}
	return e, nil
}

func exposesOf(reqs []api.ExposeRequest) ([]instance.Expose, error) {
	var out []instance.Expose
	for _, req := range reqs {
		e, err := exposeOf(req)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func endpointOf(e instance.Expose) api.Endpoint {
	end := api.Endpoint{GuestPort: int(e.Guest), PublicPort: int(e.Public), Protocol: string(e.Protocol)}
	if e.Bind.IsValid() {
		end.Bind = e.Bind.String()
	}
	return end
}

// endpoints returns the ports of an instance, open or, while it is disabled, to be
// opened again.
func endpoints(v instance.View) []api.Endpoint {
	out := []api.Endpoint{}
	for _, e := range v.Spec.Expose {
		out = append(out, endpointOf(e))
	}
	return out
}
