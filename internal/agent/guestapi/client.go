package guestapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// DefaultURL is where the Guest API is when AEGIS_GUEST_API does not say.
const DefaultURL = "http://127.0.0.1:7777"

const (
	// callTimeout bounds one attempt. It protects against a connection that a pause left
	// half open.
	callTimeout = 15 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 1 << 20
	// The pauses between attempts.
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// Client calls the Guest API. It may be used from many goroutines.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the API at base; "" is DefaultURL.
func New(base string) *Client {
	if base == "" {
		base = DefaultURL
	}
	return &Client{
		base: strings.TrimSuffix(base, "/"),
		// Never through a proxy. Few idle connections: each takes one that the host has opened.
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 10 * time.Second}},
	}
}

// URL returns where the API is.
func (c *Client) URL() string { return c.base }

// CloseIdle closes connections that nobody uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Self returns what the host says of this instance, as it says it.
func (c *Client) Self(ctx context.Context) (json.RawMessage, error) {
	return c.call(ctx, http.MethodGet, "/v1/self", nil)
}

// Restart asks the host to restart this instance. The agent is about to end then.
func (c *Client) Restart(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/v1/self/restart", struct{}{})
	return err
}

// Tell sends a frame once: one that is of use now or never.
func (c *Client) Tell(ctx context.Context, f api.Frame) error {
	_, err := c.call(ctx, http.MethodPost, "/v1/tether/send", f)
	return err
}

// Send sends a frame until the host has it, or refuses it for good.
func (c *Client) Send(ctx context.Context, f api.Frame) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := c.Tell(ctx, f)
		if err == nil || final(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// final reports whether a frame would be refused again.
func final(err error) bool {
	return slices.Contains([]fault.Kind{fault.Invalid, fault.Denied, fault.NotFound, fault.TooLarge}, fault.KindOf(err))
}

// call makes one attempt at a call.
func (c *Client) call(ctx context.Context, method, path string, body any) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", path, err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "ask the host")
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the host's answer to %s %s", method, path)
	}
	if resp.StatusCode/100 != 2 {
		return nil, refusal(resp.StatusCode, data)
	}
	return data, nil
}

// refusal makes an error of an answer that is no success.
func refusal(status int, body []byte) error {
	var e struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	msg := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &e) == nil && e.Error.Message != "" {
		msg = e.Error.Message
	}
	if len(msg) > 500 {
		msg = strings.ToValidUTF8(msg[:500], "")
	}
	kind := fault.Unavailable
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		kind = fault.Invalid
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = fault.Denied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		kind = fault.NotFound
	case http.StatusConflict:
		kind = fault.Conflict
	case http.StatusRequestEntityTooLarge:
		kind = fault.TooLarge
	}
	return fault.New(kind, "the host answers %d: %s", status, msg).By(fault.Host)
}
