package gatewaytest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Serve serves the daemon's API at a unix socket, until stop is called. Execs print
// their command line and end with the status that it has behind "exit ".
func (d *Daemon) Serve(socket string) (stop func(), err error) {
	l, err := net.Listen("unix", socket) //nolint:noctx // it does not wait
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: d.handler()} //nolint:gosec // it is the test's own
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l) // until it is closed
	}()
	return func() {
		_ = srv.Close()
		<-ended
	}, nil
}

func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	const one = " /v1/instances/{id}"
	mux.HandleFunc("POST"+one+"/tether", func(w http.ResponseWriter, r *http.Request) {
		var f api.Frame
		if !read(w, r, &f) {
			return
		}
		out, err := d.TetherSend(r.Context(), r.PathValue("id"), f)
		write(w, http.StatusAccepted, out, err)
	})
	mux.HandleFunc("GET"+one+"/tether/stream", d.stream)
	mux.HandleFunc("GET"+one+"/tether/watermark", func(w http.ResponseWriter, r *http.Request) {
		out, err := d.TetherWatermark(r.Context(), "", r.FormValue("channel"))
		write(w, http.StatusOK, out, err)
	})
	mux.HandleFunc("POST"+one+"/tether/watermark", func(w http.ResponseWriter, r *http.Request) {
		var m api.Watermark
		if !read(w, r, &m) {
			return
		}
		out, err := d.SetTetherWatermark(r.Context(), "", m)
		write(w, http.StatusOK, out, err)
	})
	mux.HandleFunc("POST"+one+"/blob", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		out, err := d.PutBlob(r.Context(), "", b)
		write(w, http.StatusOK, out, err)
	})
	mux.HandleFunc("GET"+one+"/workspace", func(w http.ResponseWriter, r *http.Request) {
		b, err := d.ReadWorkspace(r.Context(), "", r.FormValue("path"))
		if err != nil {
			write(w, 0, nil, err)
			return
		}
		_, _ = w.Write(b) //nolint:gosec // no browser reads it
	})
	mux.HandleFunc("POST"+one+"/exec", d.exec)
	return mux
}

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(r.Body).Decode(v); err != nil {
		write(w, 0, nil, fault.Wrap(fault.Invalid, err, "decode"))
		return false
	}
	return true
}

func write(w http.ResponseWriter, status int, v any, err error) {
	if err != nil {
		status, v = http.StatusServiceUnavailable, api.Error{Error: err.Error(), Code: string(fault.KindOf(err)), Hint: fault.HintOf(err)}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (d *Daemon) stream(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.FormValue("after_seq"), 10, 64)
	q := client.TetherQuery{Session: api.Session{Channel: r.FormValue("channel"), ID: r.FormValue("session_id")}, After: after, Stored: r.Form.Has("after_seq")}
	for t := range strings.SplitSeq(r.FormValue("types"), ",") {
		if t != "" {
			q.Types = append(q.Types, api.FrameType(t))
		}
	}
	out := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	_ = out.Flush()
	for f, err := range d.TetherStream(r.Context(), r.PathValue("id"), q) {
		if err != nil {
			return
		}
		if json.NewEncoder(w).Encode(f) != nil || out.Flush() != nil {
			return
		}
	}
}

func (d *Daemon) exec(w http.ResponseWriter, r *http.Request) {
	var req api.ExecRequest
	if !read(w, r, &req) {
		return
	}
	line := req.Command[len(req.Command)-1]
	d.mu.Lock()
	d.execs = append(d.execs, line)
	d.mu.Unlock()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, status, _ := strings.Cut(line, "exit ")
	code, _ := strconv.Atoi(status)
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.AttachProtocol)
	_ = frame.Write(conn, frame.Stdout, []byte("ran "+line+"\n"))
	_ = frame.Write(conn, frame.Exit, binary.BigEndian.AppendUint32(nil, uint32(code))) //nolint:gosec // small
	_, _ = io.Copy(io.Discard, conn)
}
