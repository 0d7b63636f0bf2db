package guestapi

import (
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// tetherSend answers POST /v1/tether/send.
func (s *Server) tetherSend(c *call) error {
	var f api.Frame
	if err := decode(c, &f, false); err != nil {
		return err
	}
	if s.conf.Tether == nil {
		return fault.New(fault.Unavailable, "this daemon takes no messages of agents")
	}
	sent, err := s.conf.Tether.Emit(c.ctx(), c.self.ID, f)
	if err != nil {
		return err
	}
	return answer(c.w, http.StatusOK, sent)
}
