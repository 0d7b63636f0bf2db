package mcpguest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/xfeldman/aegisvm/api"
)

// DefaultAPI is where the Guest API is in every VM.
const DefaultAPI = "http://127.0.0.1:7777"

// maxAnswer bounds an answer that is read whole.
const maxAnswer = 16 << 20

// caller makes requests of the Guest API. Each has a connection of its own: those that
// are kept break whenever the VM sleeps.
type caller struct {
	base string
	http *http.Client
}

func newCaller(base string) *caller {
	if base == "" {
		base = DefaultAPI
	}
	return &caller{base: strings.TrimSuffix(base, "/"), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// brokenError is a request whose answer did not come: the VM slept, or was copied. Whether
// it was done is not known.
type brokenError struct{ err error }

// Error implements error.
func (e brokenError) Error() string {
	return fmt.Sprintf("the connection to the host broke, as it does when the VM sleeps or is copied: %v", e.err)
}

// Unwrap returns the cause.
func (e brokenError) Unwrap() error { return e.err }

// refusedError is an answer that is not 2xx.
type refusedError struct {
	status int
	body   api.GuestErrorBody
}

// Error implements error.
func (e refusedError) Error() string {
	text := e.body.Message
	if e.body.Hint != "" {
		text += " (" + e.body.Hint + ")"
	}
	return fmt.Sprintf("%s [%s, %d]", text, e.body.Code, e.status)
}

// attempts is how often a request is made that may be made again.
const attempts = 3

// do makes a request and reads the answer into out, unless that is nil.
func (c *caller) do(ctx context.Context, method, path string, in, out any) error {
	var err error
	for range attempts {
		if err = c.once(ctx, method, path, in, out); !again(ctx, method, err) {
			break
		}
	}
	return err
}

// again reports whether a request failed that may be made once more.
func again(ctx context.Context, method string, err error) bool {
	_, broken := errors.AsType[brokenError](err)
	return broken && ctx.Err() == nil && method == http.MethodGet
}

func (c *caller) once(ctx context.Context, method, path string, in, out any) error {
	res, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return brokenError{err}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the host's answer: %w", err)
	}
	return nil
}

// open makes a request. The caller closes the answer's body.
func (c *caller) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, brokenError{err}
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close() //nolint:errcheck // only read
	refused := refusedError{status: res.StatusCode}
	var e api.GuestError
	if json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&e) == nil {
		refused.body = e.Error
	}
	return nil, refused
}

// lines calls each for the lines of an answer, until it returns false.
func (c *caller) lines(ctx context.Context, method, path string, in any, each func([]byte) bool) error {
	res, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only read
	scan := bufio.NewScanner(res.Body)
	scan.Buffer(nil, maxAnswer)
	for scan.Scan() {
		var e api.GuestError
		if json.Unmarshal(scan.Bytes(), &e) == nil && e.Error.Message != "" {
			return refusedError{res.StatusCode, e.Error}
		}
		if !each(scan.Bytes()) {
			return nil
		}
	}
	if err := scan.Err(); err != nil {
		return brokenError{err}
	}
	return nil
}
