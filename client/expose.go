package client

import (
	"context"
	"fmt"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
)

// Expose opens a port of an instance on the host, in any state of the instance.
func (c *Client) Expose(ctx context.Context, ref string, req api.ExposeRequest) (api.Exposed, error) {
	var out api.Exposed
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/expose"), req, &out)
	return out, err
}

// Unexpose closes a port of an instance, with the connections that came in on it.
func (c *Client) Unexpose(ctx context.Context, ref string, guestPort int) error {
	var out api.Outcome
	return c.call(ctx, http.MethodDelete, at(ref, fmt.Sprintf("/expose/%d", guestPort)), &out)
}
