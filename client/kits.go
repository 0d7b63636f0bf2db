package client

import (
	"context"
	"net/http"

	"github.com/xfeldman/aegisvm/api"
)

// Kits returns the kits that the daemon finds, by name.
func (c *Client) Kits(ctx context.Context) ([]api.Kit, error) {
	var out []api.Kit
	return out, c.call(ctx, http.MethodGet, "/v1/kits", &out)
}
