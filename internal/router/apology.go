package router

import (
	"bufio"
	"bytes"
	"encoding/json"
	"html/template"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// retryAfter is what a client is told to wait, in seconds, before it asks again for an
// instance that could not be woken.
const retryAfter = 3

// statusOf is the HTTP status of an error on the way to a guest.
func statusOf(err error) int {
	switch fault.KindOf(err) { //nolint:exhaustive // all others mean that it cannot be woken
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Denied:
		return http.StatusForbidden
	case fault.Invalid:
		return http.StatusBadRequest
	}
	if fault.BlameOf(err) == fault.Program && fault.KindOf(err) == fault.Unavailable {
		return http.StatusBadGateway // awake, and nothing listens
	}
	return http.StatusServiceUnavailable
}

var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:4em auto;padding:0 1em}code{background:#eee;padding:.1em .3em}</style>
<h1>{{.Title}}</h1><p>{{.Error}}</p>{{with .Hint}}<p><code>{{.}}</code></p>{{end}}
</html>
`))

// answerError writes an error as a page where the client prefers one, else as JSON.
func answerError(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	h := w.Header()
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	h.Set("Cache-Control", "no-store")
	body := api.ErrorOf(err)
	var out bytes.Buffer
	if wantsPage(r) {
		h.Set("Content-Type", "text/html; charset=utf-8")
		// It is made of strings; writing to a buffer does not fail.
		_ = page.Execute(&out, struct{ Title, Error, Hint string }{http.StatusText(status), body.Error, body.Hint})
	} else {
		h.Set("Content-Type", "application/json")
		_ = json.NewEncoder(&out).Encode(body) // as above
	}
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // a client that has gone needs no answer
}

// wantsPage reports whether a client asks for HTML before JSON, as browsers do.
func wantsPage(r *http.Request) bool {
	for field := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		switch kind, _, _ := mime.ParseMediaType(field); kind {
		case "text/html", "application/xhtml+xml":
			return true
		case "application/json":
			return false
		}
	}
	return false
}

// apologyTimeout bounds writing to a client that does not read.
const apologyTimeout = 2 * time.Second

// apologize tells a client that began to speak HTTP/1 why it has no answer. It reports
// whether it did.
func apologize(client net.Conn, said []byte, err error) bool {
	r, bad := http.ReadRequest(bufio.NewReader(bytes.NewReader(said)))
	if bad != nil {
		return false
	}
	_ = client.SetDeadline(time.Now().Add(apologyTimeout)) // else the write fails
	w := &response{header: http.Header{}}
	answerError(w, r, err)
	w.header.Set("Connection", "close")
	out := http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: w.header, ContentLength: int64(w.body.Len()), Body: &w.body,
	}
	if out.Write(client) != nil {
		return false
	}
	half, ok := client.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil && drain(client)
}

// drain reads what the client still has to say: closing a socket with unread bytes
// resets it, which can cost the client the answer.
func drain(client net.Conn) bool {
	buf := make([]byte, 4<<10)
	for range 256 {
		if _, err := client.Read(buf); err != nil {
			return true
		}
	}
	return true
}

// response is a http.ResponseWriter in memory.
type response struct {
	header http.Header
	status int
	body   body
}

type body struct{ bytes.Buffer }

// Close implements io.Closer.
func (*body) Close() error { return nil }

func (r *response) Header() http.Header         { return r.header }
func (r *response) WriteHeader(status int)      { r.status = status }
func (r *response) Write(b []byte) (int, error) { return r.body.Write(b) }
