package guestapi

import (
	"context"
	"errors"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logline"
)

// maxLine bounds what a line without an end makes the host keep; a longer one is sent in
// parts.
const maxLine = 64 << 10

// execChild answers POST /v1/instances/{id}/exec with lines: an ExecStarted, log entries, an
// ExecDone. The command ends when the client goes.
func (s *Server) execChild(c *call, v instance.View) error {
	var req api.ExecRequest
	if err := decode(c, &req, false); err != nil {
		return err
	}
	if req.Stdin || req.TTY != nil {
		return fault.New(fault.Invalid, "commands in children have neither stdin nor a terminal")
	}
	x, err := s.conf.Instances.Exec(c.ctx(), string(v.ID), instance.ExecSpec{
		Command: req.Command, Env: req.Env, Workdir: req.Workdir, User: req.User,
	})
	if err != nil {
		return err
	}
	// Recv does not end with the request: closing the exec ends it.
	stop := context.AfterFunc(c.ctx(), func() { _ = x.Close() }) // closed again below
	defer stop()
	out, id := newLines(c.w), string(x.ID())
	out.send(api.ExecStarted{ExecID: id, StartedAt: time.Now().UTC()})
	entry := api.LogEntry{Source: "exec", InstanceID: string(v.ID), ExecID: id}
	status, err := logline.Relay(x, entry, maxLine, func(e api.LogEntry) { out.send(e) })
	if err = errors.Join(err, x.Close()); err != nil {
		out.send(errorOf(err))
		return nil
	}
	out.send(api.ExecDone{ExecID: id, ExitCode: int(status), Done: true})
	return nil
}

// logsOfChild answers GET /v1/instances/{id}/logs.
func (s *Server) logsOfChild(c *call, v instance.View) error {
	q, err := logline.Query(c.r.URL.Query())
	if err != nil {
		return err
	}
	all, err := s.conf.Instances.Lines(c.ctx(), string(v.ID), q)
	if err != nil {
		return err
	}
	out := newLines(c.w)
	for line, err := range all {
		if err != nil {
			if c.ctx().Err() == nil {
				out.send(errorOf(err))
			}
			return nil
		}
		if !out.put(logline.Entry(v.ID, line)) || q.Follow && !out.flush() {
			return nil
		}
	}
	return nil
}
