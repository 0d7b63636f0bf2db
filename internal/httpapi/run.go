package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/size"
)

// run answers POST /v1/run.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	if !wantsAttach(r) {
		return fault.New(fault.Invalid, "a run needs the header Upgrade: %s", api.AttachProtocol)
	}
	var req api.RunRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	if err := s.checkVMM(req.VMM); err != nil {
		return err
	}
	spec, err := specOf(req)
	if err != nil {
		return err
	}
	return s.attach(w, r, func(ctx context.Context) (attachment, string, error) {
		run, err := s.conf.Runner.Run(ctx, spec)
		if err != nil {
			return nil, "", err
		}
		return run, string(run.ID()), nil
	})
}

// attachment is a connection to a process, as instance.Attachment describes it.
// Close ends the process and what was made for it, and unblocks Recv and Send.
type attachment interface {
	Recv() (frame.Frame, error)
	Send(f frame.Frame) error
	Close() error
}

// attach starts a process and relays its streams over the request's connection.
// start returns what is named in the answer's header, too.
func (s *Server) attach(w http.ResponseWriter, r *http.Request, start func(context.Context) (attachment, string, error)) error {
	// Counted from here, while http.Server still waits for the request, so that
	// Close misses no stream.
	s.streams.Add(1)
	defer s.streams.Done()
	// The context ends when the client goes.
	process, id, err := start(r.Context())
	if err != nil {
		return err
	}
	conn, in, err := upgrade(w, id)
	if err != nil {
		return errors.Join(err, process.Close())
	}
	log := s.conf.Log.With(logattr.Instance(id))
	relay := &relay{conn: conn, in: in, run: process, log: log}
	relay.serve(r.Context())
	return nil
}

// wantsAttach reports whether a request asks for an attach stream.
func wantsAttach(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), api.AttachProtocol)
}

// maxMB keeps sizes in MB from overflowing when they become bytes.
const maxMB = 1 << 40

func specOf(req api.RunRequest) (instance.Spec, error) {
	for field, mb := range map[string]int64{"memory_mb": req.MemoryMB, "disk_mb": req.DiskMB} {
		if mb < 0 || mb > maxMB {
			return instance.Spec{}, fault.New(fault.Invalid, "%s cannot be %d", field, mb)
		}
	}
	expose, err := exposesOf(req.Expose)
	if err != nil {
		return instance.Spec{}, err
	}
	pause, stop, err := idleTimes(req.PauseAfterS, req.StopAfterS)
	if err != nil {
		return instance.Spec{}, err
	}
	spec := instance.Spec{
		Expose:  expose,
		Egress:  instance.Egress{Mode: req.Egress, Allow: req.AllowHosts},
		Folders: foldersOf(req.Workspace, req.WorkspaceReadOnly, req.Mounts),
		Handle:  req.Handle,
		Command: req.Command,
		Env:     req.Env,
		Secrets: req.Secrets,
		Workdir: req.Workdir,
		User:    req.User,
		Image:   req.ImageRef,
		Pull:    instance.Pull(req.Pull),
		Memory:  size.Bytes(req.MemoryMB) * size.MiB,
		VCPUs:   req.VCPUs,
		Disk:    size.Bytes(req.DiskMB) * size.MiB,
		Kit:     instance.Kit{Name: req.Kit},

		Capabilities: req.Capabilities,

		Ephemeral: true,
		Stdin:     req.Stdin,
		TTY:       req.TTY,
	}
	if pause != nil {
		spec.PauseAfter = *pause
	}
	if stop != nil {
		spec.StopAfter = *stop
	}
	return spec, nil
}

// upgrade answers 101 and takes the connection out of HTTP's hands.
func upgrade(w http.ResponseWriter, id string) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		api.AttachProtocol, api.InstanceHeader, id)
	if err != nil {
		// The client has gone; the relay notices too, and ends the run.
		return conn, rw.Reader, nil //nolint:nilerr // see above
	}
	return conn, rw.Reader, nil
}
