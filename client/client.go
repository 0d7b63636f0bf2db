package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"syscall"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/presence"
)

// Error is a failure that the daemon reported or that kept a call from reaching it.
type Error = fault.Error

// ErrNotRunning is wrapped by the errors of calls that found no daemon.
var ErrNotRunning = errors.New("aegisd is not running")

// ErrEnded is wrapped by the errors of calls whose daemon ended before it answered.
var ErrEnded = errors.New("aegisd ended before it answered")

// Client talks to one daemon. Its methods may be called together.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the daemon that serves the unix socket. It does no I/O.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true, // a connection costs nothing, a kept one would keep the daemon
	}}
	return c
}

// Status returns what the daemon is.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	var s api.Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", &s)
}

// Shutdown makes the daemon put all instances to sleep on disk, or stop them, and end.
// It returns when that has happened to all; the daemon's end is near then. tell is
// called with what happens to them.
func (c *Client) Shutdown(ctx context.Context, stop bool, tell func(api.Event)) error {
	begun := false
	for e, err := range lines[api.Event](ctx, c, http.MethodPost, fmt.Sprintf("/v1/shutdown?stop=%t", stop)) {
		switch {
		case err != nil && !begun:
			return err
		case err != nil: // it has ended before it said so
			return context.Cause(ctx)
		case begun: // the first line says only that it begins
			tell(e)
		}
		begun = true
	}
	return context.Cause(ctx)
}

// call makes a request without a body and decodes the answer into out.
func (c *Client) call(ctx context.Context, method, path string, out any) error {
	_, err := c.exchange(ctx, method, path, nil, out)
	return err
}

// exchange makes a request with in as its body (nil for none), decodes the answer into
// out, and returns its status.
func (c *Client) exchange(ctx context.Context, method, path string, in, out any) (status int, err error) {
	req, err := request(ctx, method, path, in)
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, explain(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode >= http.StatusMultipleChoices {
		return resp.StatusCode, failure(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return resp.StatusCode, explain(ctx, fmt.Errorf("read the answer to %s %s: %w", method, path, err))
	}
	return resp.StatusCode, nil
}

func request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		if err := checkText(reflect.ValueOf(in)); err != nil {
			return nil, err
		}
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://aegisd"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// checkText refuses strings that are not UTF-8: JSON has no place for them, and the
// program would get others in their stead.
func checkText(v reflect.Value) error {
	switch v.Kind() { //nolint:exhaustive // what else requests hold has no strings
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return fault.New(fault.Invalid, "%q is not UTF-8, and cannot be passed on", v.String()).
				WithHint("pass it through stdin or a file, or let a shell in the VM make it: printf '\\377'")
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			if err := checkText(field); err != nil {
				return err
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			if err := checkText(v.Index(i)); err != nil {
				return err
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if err := errors.Join(checkText(key), checkText(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := presence.Dial(ctx, c.socket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, &Error{Kind: fault.Unavailable, Err: ErrNotRunning, Hint: "start it: aegis up"}
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.Wrap(fault.Denied, err, "the daemon's socket belongs to another user").
			WithHint("start your own: unset AEGIS_HOME, then aegis up")
	}
	return nil, fmt.Errorf("connect to aegisd: %w", err)
}

// explain returns what err is to a person.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if f, ok := errors.AsType[*Error](err); ok {
		return f // without net/http's words for it
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // as above: a URL says nothing on a socket
	}
	if isLost(err) {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %w", ErrEnded, err), "").
			By(fault.Host).WithHint("its log tells why: aegis status, then data/aegisd.log in AEGIS_HOME")
	}
	return err
}

// isLost tells whether the other end of a connection has gone.
func isLost(err error) bool {
	if err.Error() == "http: server closed idle connection" { // net/http has no name for it
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// maxError bounds what is read of an answer that reports an error.
const maxError = 1 << 20

// failure returns the error that an answer reports.
func failure(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return fmt.Errorf("read an answer with status %s: %w", resp.Status, err)
	}
	var e api.Error
	if json.Unmarshal(b, &e) != nil || e.Error == "" {
		return fault.New(fault.Internal, "aegisd answered %s: %.200q", resp.Status, b).
			WithHint("is this aegisd? see: aegis doctor")
	}
	return e.Fault()
}
