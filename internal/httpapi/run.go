package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/size"
)

// run answers POST /v1/run.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), api.AttachProtocol) {
		return fault.New(fault.Invalid, "a run needs the header Upgrade: %s", api.AttachProtocol)
	}
	var req api.RunRequest
	if err := decode(r, &req); err != nil {
		return err
	}
	spec, err := specOf(req)
	if err != nil {
		return err
	}
	// Counted from here, while http.Server still waits for the request, so that
	// Close misses no stream.
	s.streams.Add(1)
	defer s.streams.Done()
	// The context ends when the client goes.
	run, err := s.conf.Runner.Run(r.Context(), spec)
	if err != nil {
		return err
	}
	conn, in, err := upgrade(w, run.ID())
	if err != nil {
		return errors.Join(err, run.Close())
	}
	s.track(conn)
	defer s.untrack(conn)
	log := s.conf.Log.With(logattr.Instance(run.ID()))
	relay := &relay{conn: conn, in: in, run: run, log: log}
	relay.serve(r.Context())
	return nil
}

// maxMB keeps sizes in MB from overflowing when they become bytes.
const maxMB = 1 << 40

func specOf(req api.RunRequest) (instance.Spec, error) {
	for field, mb := range map[string]int64{"memory_mb": req.MemoryMB, "disk_mb": req.DiskMB} {
		if mb < 0 || mb > maxMB {
			return instance.Spec{}, fault.New(fault.Invalid, "%s cannot be %d", field, mb)
		}
	}
	return instance.Spec{
		Handle:    req.Handle,
		Command:   req.Command,
		Env:       req.Env,
		Workdir:   req.Workdir,
		User:      req.User,
		Image:     req.ImageRef,
		Memory:    size.Bytes(req.MemoryMB) * size.MiB,
		VCPUs:     req.VCPUs,
		Disk:      size.Bytes(req.DiskMB) * size.MiB,
		Ephemeral: true,
		Stdin:     req.Stdin,
		TTY:       req.TTY,
	}, nil
}

// upgrade answers 101 and takes the connection out of HTTP's hands.
func upgrade(w http.ResponseWriter, id instance.ID) (net.Conn, *bufio.Reader, error) {
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
