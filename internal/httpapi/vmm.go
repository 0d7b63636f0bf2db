package httpapi

import "github.com/xfeldman/aegisvm/internal/fault"

// checkVMM refuses a VM that is to run on another VMM than the daemon's, which has one for
// all.
func (s *Server) checkVMM(wanted string) error {
	if is := s.conf.Status().Backend; wanted != "" && wanted != "auto" && wanted != is {
		return fault.New(fault.Conflict, "the daemon runs VMs on %s, not on %s", is, wanted).
			WithHint("aegis down && AEGIS_VMM=%s aegis up; what that needs: aegis doctor", wanted)
	}
	return nil
}
