package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// SetSecret stores a secret, in the place of one of that name if there is one. The
// value is UTF-8 text of 1 MiB at most, and goes to the daemon exactly as it is.
func (c *Client) SetSecret(ctx context.Context, name, value string) (api.Secret, error) {
	var out api.Secret
	if err := secret.CheckName(name); err != nil {
		return out, err
	}
	// Here too: what is not UTF-8 would not arrive as it is.
	if err := secret.CheckValue(value); err != nil {
		return out, err
	}
	_, err := c.exchange(ctx, http.MethodPut, secretAt(name), api.SecretValue{Value: value}, &out)
	return out, err
}

// Secrets returns names and dates of all secrets, by name.
func (c *Client) Secrets(ctx context.Context) ([]api.Secret, error) {
	var out []api.Secret
	return out, c.call(ctx, http.MethodGet, "/v1/secrets", &out)
}

// DeleteSecret forgets a secret. Programs that have it keep it.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	if err := secret.CheckName(name); err != nil {
		return err
	}
	_, err := c.change(ctx, http.MethodDelete, secretAt(name))
	return err
}

// RotateMasterKey makes a new master key, seals all secrets with it, and returns how
// many there are.
func (c *Client) RotateMasterKey(ctx context.Context) (int, error) {
	var out api.Rotated
	err := c.call(ctx, http.MethodPost, "/v1/master-key/rotate", &out)
	return out.Secrets, err
}

// SetInstanceSecrets changes which secrets an instance's program gets at its next
// start, and its execs from now on. "*" is all that are stored.
func (c *Client) SetInstanceSecrets(ctx context.Context, ref string, names []string) (api.InstanceSecrets, error) {
	var out api.InstanceSecrets
	_, err := c.exchange(ctx, http.MethodPut, at(ref, "/secrets"), api.SecretNames{Secrets: append([]string{}, names...)}, &out)
	return out, err
}

func secretAt(name string) string { return "/v1/secrets/" + url.PathEscape(name) }
