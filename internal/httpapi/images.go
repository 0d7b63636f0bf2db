package httpapi

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// Images is what the API needs of images. *image.Store is one. tell may be called by
// several goroutines, and not after the method has returned.
type Images interface {
	List(ctx context.Context) ([]api.Image, error)
	Inspect(ctx context.Context, ref string) (api.Image, error)
	Pull(ctx context.Context, ref string, policy instance.Pull, tell func(api.ImageProgress)) (api.Image, error)
	Import(ctx context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error)
	ImportStream(ctx context.Context, r io.Reader, name string, tell func(api.ImageProgress)) ([]api.Image, error)
	Remove(ctx context.Context, ref string, force bool) (api.ImagesRemoved, error)
	Prune(ctx context.Context, all bool) (api.ImagesRemoved, error)
}

// listImages answers GET /v1/images.
func (s *Server) listImages(w http.ResponseWriter, r *http.Request) error {
	all, err := s.conf.Images.List(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, all)
	return nil
}

// inspectImage answers GET /v1/images/inspect.
func (s *Server) inspectImage(w http.ResponseWriter, r *http.Request) error {
	i, err := s.conf.Images.Inspect(r.Context(), r.URL.Query().Get("ref"))
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, i)
	return nil
}

// pullImage answers POST /v1/images/pull.
func (s *Server) pullImage(w http.ResponseWriter, r *http.Request) error {
	var req api.ImagePullRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	return s.arriving(w, r, func(ctx context.Context, tell func(api.ImageProgress)) ([]api.Image, error) {
		i, err := s.conf.Images.Pull(ctx, req.Ref, instance.Pull(req.Policy), tell)
		return []api.Image{i}, err
	})
}

// warmImage answers POST /v1/images/warm.
func (s *Server) warmImage(w http.ResponseWriter, r *http.Request) error {
	var req api.ImageWarmRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	i, err := s.conf.Images.Inspect(r.Context(), req.Ref)
	if err != nil {
		return err
	}
	if err := s.conf.Instances.Warm(r.Context(), req.Ref); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, i)
	return nil
}

// importImage answers POST /v1/images/import.
func (s *Server) importImage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	return s.arriving(w, r, func(ctx context.Context, tell func(api.ImageProgress)) ([]api.Image, error) {
		if path := q.Get("path"); path != "" {
			return s.conf.Images.Import(ctx, path, q.Get("name"), tell)
		}
		body := &upload{body: r.Body, conn: http.NewResponseController(w)}
		return s.conf.Images.ImportStream(ctx, body, q.Get("name"), tell)
	})
}

// arriving answers with the progress of images, then the images. What fails before there
// is any progress is an ordinary error.
func (s *Server) arriving(w http.ResponseWriter, r *http.Request, do func(context.Context, func(api.ImageProgress)) ([]api.Image, error)) error {
	// A body that is not read to its end must not hold the answer up.
	_ = http.NewResponseController(w).EnableFullDuplex() // fails where it cannot happen
	var mu sync.Mutex
	var out *lineStream
	images, err := do(r.Context(), func(p api.ImageProgress) {
		mu.Lock()
		defer mu.Unlock()
		if out == nil {
			out = s.stream(w)
		}
		out.send(p)
	})
	mu.Lock()
	defer mu.Unlock()
	if err != nil && out == nil {
		return err
	}
	if out == nil {
		out = s.stream(w)
	}
	if err != nil {
		out.send(api.ErrorOf(err))
		return nil
	}
	for _, i := range images {
		out.send(api.ImageProgress{Status: "done", Image: &i})
	}
	return nil
}

// commit answers POST /v1/instances/{id}/commit.
func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	var req api.ImageCommitRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	base, err := s.conf.Instances.Commit(r.Context(), r.PathValue("id"), req.Name)
	if err != nil {
		return err
	}
	i, err := s.conf.Images.Inspect(r.Context(), base.ID)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, i)
	return nil
}

// removeImage answers DELETE /v1/images.
func (s *Server) removeImage(w http.ResponseWriter, r *http.Request) error {
	force, err := switched(r, "force")
	if err != nil {
		return err
	}
	ref := r.URL.Query().Get("ref")
	if ref == "" {
		return fault.New(fault.Invalid, "parameter ref names no image")
	}
	out, err := s.conf.Images.Remove(r.Context(), ref, force)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

// pruneImages answers POST /v1/images/prune.
func (s *Server) pruneImages(w http.ResponseWriter, r *http.Request) error {
	all, err := switched(r, "all")
	if err != nil {
		return err
	}
	out, err := s.conf.Images.Prune(r.Context(), all)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

// switched reads a parameter that is true or false.
func switched(r *http.Request, name string) (bool, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(v)
	if err != nil {
		return false, fault.New(fault.Invalid, "parameter %s is %q, neither true nor false", name, v)
	}
	return yes, nil
}
