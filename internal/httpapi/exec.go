package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logline"
)

// exec answers POST /v1/instances/{id}/exec: an attach stream, or lines of JSON. Either
// way the command ends when the client goes.
func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	var req api.ExecRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	ref := r.PathValue("id")
	spec := instance.ExecSpec{
		Command: req.Command, Env: req.Env, Workdir: req.Workdir, User: req.User, Stdin: req.Stdin, TTY: req.TTY,
	}
	if wantsAttach(r) {
		return s.attach(w, r, func(ctx context.Context) (attachment, string, error) {
			x, err := s.conf.Instances.Exec(ctx, ref, spec)
			if err != nil {
				return nil, "", err
			}
			return x, string(x.ID()), nil
		})
	}
	if req.Stdin || req.TTY != nil {
		return fault.New(fault.Invalid, "stdin and tty need the header Upgrade: %s", api.AttachProtocol)
	}
	return s.execLines(w, r, ref, spec)
}

// execLines streams an exec as NDJSON.
func (s *Server) execLines(w http.ResponseWriter, r *http.Request, ref string, spec instance.ExecSpec) error {
	x, err := s.conf.Instances.Exec(r.Context(), ref, spec)
	if err != nil {
		return err
	}
	// Recv does not end with the request: closing the exec ends it.
	stop := context.AfterFunc(r.Context(), func() { _ = x.Close() }) // closed again below
	defer stop()
	out := s.stream(w)
	out.send(api.ExecStarted{ExecID: string(x.ID()), StartedAt: time.Now().UTC()})
	id := ref
	if v, err := s.conf.Instances.Get(ref); err == nil {
		id = string(v.ID)
	}
	entry := api.LogEntry{Source: "exec", InstanceID: id, ExecID: string(x.ID())}
	status, err := logline.Relay(x, entry, maxLine, func(e api.LogEntry) { out.send(e) })
	err = errors.Join(err, x.Close())
	if err != nil {
		out.send(api.ErrorOf(err))
		return nil
	}
	out.send(api.ExecDone{ExecID: string(x.ID()), ExitCode: int(status), Done: true})
	return nil
}

// maxLine bounds what a line without an end makes the daemon keep; a longer one is
// sent in parts.
const maxLine = 16 << 20
