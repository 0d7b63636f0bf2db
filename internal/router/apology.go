package router

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// retryAfter is what a client is told to wait, in seconds, before it asks again for an
// instance that could not be woken.
const retryAfter = 3

// statusOf is the HTTP status of an error on the way to a guest.
func statusOf(err error) int {
	switch {
	case errors.Is(err, instance.ErrDeleted):
		return http.StatusNotFound
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, errBrokeOff):
		return http.StatusBadGateway // it is awake, and its program does not answer
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
func answerError(w http.ResponseWriter, r *http.Request, status int, err error) {
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

// patience bounds the end of a connection with a client that does not read, or does
// not stop to write.
const patience = 2 * time.Second

// apologize tells a client that began to speak HTTP/1 why it has no answer. It reports
// whether it did.
func apologize(client *net.TCPConn, said []byte, err error) bool {
	r, bad := http.ReadRequest(bufio.NewReader(bytes.NewReader(said)))
	if bad != nil || r.ProtoMajor != 1 { // HTTP/2 begins with what looks like a request
		return false
	}
	w := &response{header: http.Header{}}
	answerError(w, r, statusOf(err), err)
	w.header.Set("Connection", "close")
	out := http.Response{
		StatusCode: w.status, ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: w.header, ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}
	_ = client.SetDeadline(time.Now().Add(patience)) // else the write fails
	if out.Write(client) != nil || client.CloseWrite() != nil {
		return false
	}
	drain(client)
	return true
}

// maxDrain bounds what is read for nothing.
const maxDrain = 1 << 20

// drain reads what the client still has to say: closing a socket with unread bytes
// resets it, which can cost the client the answer.
func drain(client *net.TCPConn) {
	_ = client.SetReadDeadline(time.Now().Add(patience)) // else the read fails
	_, _ = io.CopyN(io.Discard, client, maxDrain)        // whatever ends it
}

// response is a http.ResponseWriter in memory.
type response struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *response) Header() http.Header         { return r.header }
func (r *response) WriteHeader(status int)      { r.status = status }
func (r *response) Write(b []byte) (int, error) { return r.body.Write(b) }
