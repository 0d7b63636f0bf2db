package guestapi

import (
	"context"
	"net/http"
	"time"
)

// Leases of the machine.
const (
	leaseTTL   = time.Minute
	leaseRenew = 20 * time.Second
	// leaseRetry is how soon a lease that could not be had is asked for again.
	leaseRetry = time.Second
)

// Hold keeps the machine awake until ctx ends, and then gives it back. A host that cannot
// be reached is asked again; one that knows no leases is left alone. There is one lease for
// the machine: one goroutine at a time holds it.
func (c *Client) Hold(ctx context.Context, reason string) {
	lease := map[string]any{"ttl_ms": leaseTTL.Milliseconds(), "reason": reason}
	for {
		_, err := c.call(ctx, http.MethodPost, "/v1/self/keepalive", lease)
		wait := leaseRenew
		switch {
		case err != nil && final(err):
			<-ctx.Done()
			return
		case err != nil:
			wait = leaseRetry
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			// The lease ends by itself where this is not heard.
			_, _ = c.call(context.WithoutCancel(ctx), http.MethodDelete, "/v1/self/keepalive", nil)
			return
		}
	}
}
