package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
)

// Kits returns the kits that the daemon finds, by name.
func (c *Client) Kits(ctx context.Context) ([]api.Kit, error) {
	var out []api.Kit
	return out, c.call(ctx, http.MethodGet, "/v1/kits", &out)
}

// KitConfig returns a file that configures a sidecar of an instance. file is a name.
func (c *Client) KitConfig(ctx context.Context, ref, file string) ([]byte, error) {
	return c.readFile(ctx, kitConfigAt(ref, file), api.MaxKitConfig)
}

// SetKitConfig replaces a file that configures a sidecar of an instance, or makes it. A
// sidecar that runs sees the change.
func (c *Client) SetKitConfig(ctx context.Context, ref, file string, data []byte) (out api.Written, err error) {
	return out, c.sendFile(ctx, kitConfigAt(ref, file), data, &out)
}

func kitConfigAt(ref, file string) string {
	return at(ref, "/kit-config?"+url.Values{"file": {file}}.Encode())
}
