package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// octets is the type of bodies that are the bytes of a file.
type octets string

// maxFileBody is how much is read of a file that is too large, and thrown away: a client
// that is still sending may lose an answer that comes before it has ended.
const maxFileBody = 4 * api.MaxWorkspaceFile

// foldersOf translates what an instance has of the host's folders.
func foldersOf(workspace string, readOnly bool, mounts []api.Mount) instance.Folders {
	f := instance.Folders{Workspace: workspace, ReadOnly: readOnly}
	for _, m := range mounts {
		f.Mounts = append(f.Mounts, instance.Mount(m))
	}
	return f
}

func mountsOf(f instance.Folders) []api.Mount {
	var out []api.Mount
	for _, m := range f.Mounts {
		out = append(out, api.Mount(m))
	}
	return out
}

// inWorkspace returns the handler of a request to an instance's workspace, whether or
// not its VM runs.
func (s *Server) inWorkspace(do func(f instance.Files, r *http.Request, path string) (answer any, err error)) handle {
	return func(w http.ResponseWriter, r *http.Request) error {
		f, err := s.conf.Instances.Files(r.PathValue("id"))
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // what was written has been closed
		out, err := do(f, r, r.URL.Query().Get("path"))
		if err != nil {
			return err
		}
		if b, file := out.([]byte); file {
			w.Header().Set("Content-Type", api.OctetType)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(b) // a client that has gone needs no answer
			return nil
		}
		s.answer(w, r, http.StatusOK, out)
		return nil
	}
}

// workspaceTree answers GET /v1/instances/{id}/workspace/tree.
func workspaceTree(f instance.Files, _ *http.Request, path string) (any, error) {
	list, err := f.Tree(path)
	if err != nil {
		return nil, err
	}
	out := make([]api.WorkspaceEntry, 0, len(list))
	for _, e := range list {
		out = append(out, api.WorkspaceEntry(e))
	}
	return out, nil
}

// readWorkspace answers GET /v1/instances/{id}/workspace.
func readWorkspace(f instance.Files, _ *http.Request, path string) (any, error) { return f.Read(path) }

// writeWorkspace answers POST /v1/instances/{id}/workspace.
func writeWorkspace(f instance.Files, r *http.Request, path string) (any, error) {
	b, err := fileBody(r)
	if err != nil {
		return nil, err
	}
	if err := f.Write(path, bytes.NewReader(b)); err != nil {
		return nil, err
	}
	return api.Written{Status: "written", Path: path, Size: int64(len(b))}, nil
}

// putBlob answers POST /v1/instances/{id}/blob.
func putBlob(f instance.Files, r *http.Request, _ string) (any, error) {
	b, err := fileBody(r)
	if err != nil {
		return nil, err
	}
	blob, err := f.PutBlob(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return api.Blob(blob), nil
}

// fileBody returns a request's body. Nothing is written before it has come.
func fileBody(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, api.MaxWorkspaceFile+1))
	switch {
	case len(b) > api.MaxWorkspaceFile:
		_, _ = io.Copy(io.Discard, r.Body) // see maxFileBody
		return nil, fault.New(fault.TooLarge, "at most %d bytes can be written", int64(api.MaxWorkspaceFile)).WithHint("use: aegis cp")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fault.Wrap(fault.Canceled, err, "the client has gone")
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, err, "the request's body")
	}
	return b, nil
}
