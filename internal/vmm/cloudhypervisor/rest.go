package cloudhypervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/xfeldman/aegisvm/internal/vmm/host"
)

// maxAnswer bounds an answer: vm.info's is some kilobytes.
const maxAnswer = 4 << 20

// rest asks a VMM over its API. Its methods may be called together; the VMM answers
// one after the other.
type rest struct{ client *http.Client }

// newREST returns a client that connects with dial.
func newREST(dial func(context.Context) (net.Conn, error)) *rest {
	return &rest{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		// A connection that idles takes one of the few that the VMM has.
		DisableKeepAlives: true, DisableCompression: true,
	}}}
}

// refusal is what the VMM said instead of doing what it was asked for.
type refusal struct {
	what   string
	status int
	words  []string // the outermost first
}

// Error implements error.
func (r *refusal) Error() string {
	said := strings.Join(r.words, ": ")
	if said == "" {
		said = http.StatusText(r.status)
	}
	return fmt.Sprintf("%s: %s", r.what, host.Printable(said))
}

// put asks for something to be done.
func (r *rest) put(ctx context.Context, what string, body any) error {
	return r.do(ctx, http.MethodPut, what, body, nil)
}

// get asks for a fact.
func (r *rest) get(ctx context.Context, what string, answer any) error {
	return r.do(ctx, http.MethodGet, what, nil, answer)
}

func (r *rest) do(ctx context.Context, method, what string, body, answer any) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost/api/v1/"+what, sent)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 != 2 {
		refused := &refusal{what: what, status: resp.StatusCode}
		if json.Unmarshal(b, &refused.words) != nil && len(b) > 0 { // words of another kind
			refused.words = []string{string(b[:min(len(b), 1<<10)])}
		}
		return refused
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(b, answer)
	}
	if err != nil {
		return fmt.Errorf("answer of %s: %w", what, errors.Join(context.Cause(ctx), err))
	}
	return nil
}

// close ends what the client still has open.
func (r *rest) close() { r.client.CloseIdleConnections() }
