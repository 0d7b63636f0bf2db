package httpapi

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// tarball is the type of bodies that are tar streams.
type tarball string

// readFiles answers GET /v1/instances/{id}/files. Until the first byte errors are
// ordinary answers; those that come later stand in the trailer.
func (s *Server) readFiles(w http.ResponseWriter, r *http.Request) error {
	req, err := copyOf(r)
	if err != nil {
		return err
	}
	out := &tarAnswer{w: w}
	notes, err := s.conf.Instances.CopyOut(r.Context(), r.PathValue("id"), req, out)
	if err != nil && !out.begun {
		return err
	}
	out.begin()
	end := api.Copied{Notes: fitting(notes)}
	if err != nil {
		e := api.ErrorOf(err)
		end.Error = &e
		if !strings.Contains(r.Header.Get("TE"), "trailers") {
			out.spoil()
		}
	}
	b, _ := json.Marshal(end) // of strings; cannot fail
	w.Header().Set(api.CopyTrailer, string(b))
	return nil
}

// tarAnswer is an answer that begins with its first byte.
type tarAnswer struct {
	w     http.ResponseWriter
	begun bool
}

func (a *tarAnswer) begin() {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", api.TarType)
		a.w.Header().Set("Trailer", api.CopyTrailer)
		a.w.WriteHeader(http.StatusOK)
	}
}

// Write implements io.Writer.
func (a *tarAnswer) Write(b []byte) (int, error) {
	a.begin()
	n, err := a.w.Write(b)
	if err != nil {
		err = fault.Wrap(fault.Canceled, err, "the client has gone")
	}
	return n, err
}

// spoil makes sure that nobody takes what was sent for a whole archive: a tar program
// that looks for the next header finds none, and one inside a file meets the end.
func (a *tarAnswer) spoil() {
	const block = 512
	_, _ = a.w.Write([]byte(strings.Repeat("the copy failed\n", block/16))) // who has gone misses nothing
}

// maxTrailer keeps a trailer within what HTTP clients read of one.
const maxTrailer = 2 << 10

// fitting returns the notes that a trailer has room for.
func fitting(notes []string) []string {
	out, room := []string{}, maxTrailer
	for _, n := range notes {
		if room -= 2 * len(n); room < 0 { // quotes and escapes
			return append(out, "more was left out")
		}
		out = append(out, n)
	}
	return out
}

// writeFiles answers PUT /v1/instances/{id}/files. The answer may come before the body
// has ended, when it is an error.
func (s *Server) writeFiles(w http.ResponseWriter, r *http.Request) error {
	req, err := copyOf(r)
	if err != nil {
		return err
	}
	body := &upload{body: r.Body, conn: http.NewResponseController(w)}
	notes, err := s.conf.Instances.CopyIn(r.Context(), r.PathValue("id"), req, body)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Copied{Notes: append([]string{}, notes...)})
	return nil
}

// upload is the body of a request. Closing it frees whoever reads.
type upload struct {
	body io.Reader
	conn *http.ResponseController
}

// Read implements io.Reader.
func (u *upload) Read(b []byte) (int, error) {
	n, err := u.body.Read(b)
	if err != nil && err != io.EOF { //nolint:errorlint // in the chain of another error it is no end
		err = fault.Wrap(fault.Canceled, err, "the client has gone")
	}
	return n, err
}

// Close implements io.Closer.
func (u *upload) Close() error { return u.conn.SetReadDeadline(time.Unix(1, 0)) }

func copyOf(r *http.Request) (guestproto.Copy, error) {
	q := r.URL.Query()
	req := guestproto.Copy{Path: q.Get("path")}
	if !strings.HasPrefix(req.Path, "/") {
		return req, fault.New(fault.Invalid, "parameter path is %q, not an absolute path in the VM", req.Path)
	}
	if !utf8.ValidString(req.Path) { // the guest would be told of another
		return req, fault.New(fault.Invalid, "parameter path is %q, which is not UTF-8", req.Path).
			WithHint("copy the folder that it is in")
	}
	for name, to := range map[string]*bool{"owners": &req.Owners, "extract": &req.Extract} {
		if v := q.Get(name); v != "" {
			var err error
			if *to, err = strconv.ParseBool(v); err != nil {
				return req, fault.New(fault.Invalid, "parameter %s is %q, neither true nor false", name, v)
			}
		}
	}
	return req, nil
}
