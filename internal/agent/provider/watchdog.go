package provider

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// Timeouts bounds how long a server may say nothing. Zeros are defaults.
type Timeouts struct {
	First time.Duration // from the request to the first byte of the answer
	Idle  time.Duration // between two pieces of the answer
}

// The defaults. A server that loads a model from disk first takes minutes.
const (
	defaultFirst = 2 * time.Minute
	hostFirst    = 10 * time.Minute
	defaultIdle  = 2 * time.Minute
)

// maxAnswer bounds an answer as it comes over the wire, in bytes.
const maxAnswer = 64 << 20

func (t Timeouts) orDefault(provider string) Timeouts {
	if t.First <= 0 {
		t.First = defaultFirst
		if provider == Host || provider == Other {
			t.First = hostFirst
		}
	}
	if t.Idle <= 0 {
		t.Idle = defaultIdle
	}
	return t
}

var (
	errFirstByte = errors.New("no answer in time")
	errIdle      = errors.New("the answer stopped in the middle")
	errTooLong   = errors.New("the answer is longer than any should be")
)

// watchdog ends requests whose server says nothing for too long. While nobody reads, no
// time counts.
type watchdog struct {
	next   http.RoundTripper
	limits Timeouts
}

// RoundTrip implements http.RoundTripper.
func (w *watchdog) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(w.limits.First, func() { cancel(errFirstByte) })
	resp, err := w.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		timer.Stop()
		defer cancel(nil)
		return nil, because(ctx, err)
	}
	resp.Body = &watched{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, idle: w.limits.Idle, left: maxAnswer}
	return resp, nil
}

// because returns the watchdog's reason for an error, if it has one.
func because(ctx context.Context, err error) error {
	for _, reason := range []error{errFirstByte, errIdle} {
		if errors.Is(context.Cause(ctx), reason) {
			return reason
		}
	}
	return err
}

// watched is the body of an answer.
type watched struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // that of the request it belongs to
	cancel context.CancelCauseFunc
	timer  *time.Timer // runs until the first byte, and then during reads
	idle   time.Duration
	begun  bool
	left   int
}

// Read implements io.Reader. It is called from one goroutine, as the SDKs do.
func (b *watched) Read(p []byte) (int, error) {
	if b.begun {
		b.timer = time.AfterFunc(b.idle, func() { b.cancel(errIdle) })
	}
	n, err := b.ReadCloser.Read(p)
	if n > 0 || err != nil {
		b.timer.Stop()
		b.begun = true
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = because(b.ctx, err)
	}
	if b.left -= n; b.left < 0 && err == nil {
		err = errTooLong
	}
	return n, err
}

// Close implements io.Closer.
func (b *watched) Close() error {
	b.timer.Stop()
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
