package httpapi

import (
	"io"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Kits is what the API needs of kits and sidecars.
type Kits interface {
	// All returns all kits, by name.
	All() []api.Kit
	// ReadConfig and WriteConfig are of the files that configure the sidecars of an
	// instance. file is a name: a path is fault.Denied.
	ReadConfig(handle, file string) ([]byte, error)
	WriteConfig(handle, file string, b []byte) error
	// Running reports whether the sidecars of an instance run.
	Running(id string) bool
}

// listKits answers GET /v1/kits.
func (s *Server) listKits(w http.ResponseWriter, r *http.Request) error {
	out := []api.Kit{}
	if s.conf.Kits != nil {
		out = s.conf.Kits.All()
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

// kitOf returns the instance of a request, which is one of a kit.
func (s *Server) kitOf(r *http.Request) (instance.View, error) {
	v, err := s.conf.Instances.Get(r.PathValue("id"))
	if err == nil && (v.Spec.Kit.Name == "" || s.conf.Kits == nil) {
		err = fault.New(fault.Conflict, "%s is of no kit", v.Spec.Handle).WithHint("make one of a kit: aegis instance start --kit KIT; see: aegis kit list")
	}
	return v, err
}

// readKitConfig answers GET /v1/instances/{id}/kit-config.
func (s *Server) readKitConfig(w http.ResponseWriter, r *http.Request) error {
	v, err := s.kitOf(r)
	if err != nil {
		return err
	}
	b, err := s.conf.Kits.ReadConfig(v.Spec.Handle, r.URL.Query().Get("file"))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", api.OctetType)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(b) //nolint:gosec // of a type that no browser runs; a client that has gone needs no answer
	return nil
}

// writeKitConfig answers POST /v1/instances/{id}/kit-config.
func (s *Server) writeKitConfig(w http.ResponseWriter, r *http.Request) error {
	v, err := s.kitOf(r)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(r.Body)
	switch {
	case isTooLarge(err), len(b) > api.MaxKitConfig:
		return fault.New(fault.TooLarge, "at most %d bytes can be written", int64(api.MaxKitConfig))
	case err != nil:
		return fault.Wrap(fault.Invalid, err, "the request's body")
	}
	file := r.URL.Query().Get("file")
	if err := s.conf.Kits.WriteConfig(v.Spec.Handle, file, b); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Written{Status: "written", Path: file, Size: int64(len(b))})
	return nil
}
