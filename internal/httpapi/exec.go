package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
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
	status, err := relayLines(x, out, api.LogEntry{Source: "exec", InstanceID: id, ExecID: string(x.ID())})
	err = errors.Join(err, x.Close())
	if err != nil {
		out.send(api.ErrorOf(err))
		return nil
	}
	out.send(api.ExecDone{ExecID: string(x.ID()), ExitCode: int(status), Done: true})
	return nil
}

// relayLines sends a process's output line by line, until its status.
func relayLines(x attachment, out *lineStream, entry api.LogEntry) (int32, error) {
	open := map[frame.Type][]byte{}
	send := func(t frame.Type, line []byte, whole bool) {
		e := entry
		e.Open = !whole
		e.TS, e.Stream = time.Now().UTC(), streamName(t)
		setLine(&e, line)
		out.send(e)
	}
	for {
		f, err := x.Recv()
		if errors.Is(err, io.EOF) {
			return 0, fault.New(fault.Internal, "the command's output ended without a status")
		}
		if err != nil {
			return 0, err
		}
		if f.Type == frame.Exit {
			for t, rest := range open {
				if len(rest) > 0 {
					send(t, rest, false)
				}
			}
			return f.Status()
		}
		if f.Type == frame.Notice {
			continue // these lines have no place for it
		}
		rest := slices.Concat(open[f.Type], f.Payload)
		for {
			line, after, whole := bytes.Cut(rest, []byte{'\n'})
			if !whole && len(rest) < maxLine {
				break
			}
			send(f.Type, line, whole)
			rest = after
		}
		open[f.Type] = rest
	}
}

// maxLine bounds what a line without an end makes the daemon keep; a longer one is
// sent in parts.
const maxLine = 16 << 20

func streamName(t frame.Type) string {
	if t == frame.Stderr {
		return "stderr"
	}
	return "stdout"
}

// setLine sets the entry's text. JSON has no place for bytes that are not UTF-8: they
// go along as they are.
func setLine(e *api.LogEntry, line []byte) {
	e.Line = string(line)
	if !utf8.Valid(line) {
		e.Bytes = line
	}
}
