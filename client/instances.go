package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
)

// Create makes a persistent instance, or starts one of that handle that is stopped;
// again says which. It does not wait for the start: Start does.
func (c *Client) Create(ctx context.Context, req api.CreateRequest) (created api.Created, again bool, err error) {
	status, err := c.exchange(ctx, http.MethodPost, "/v1/instances", req, &created)
	return created, status == http.StatusOK, err
}

// Launch does what Create does, and returns when the program runs. When it does not
// start, a new instance stays, stopped; the error tells.
func (c *Client) Launch(ctx context.Context, req api.CreateRequest) (created api.Created, again bool, err error) {
	req.Wait = true
	return c.Create(ctx, req)
}

// List returns all instances, those that run first. A state that is not empty
// selects.
func (c *Client) List(ctx context.Context, state string) ([]api.Instance, error) {
	var out []api.Instance
	return out, c.call(ctx, http.MethodGet, "/v1/instances?"+url.Values{"state": {state}}.Encode(), &out)
}

// Info returns what there is to know of an instance. Like all that follow it takes an
// id or a handle.
func (c *Client) Info(ctx context.Context, ref string) (api.InstanceInfo, error) {
	var out api.InstanceInfo
	return out, c.call(ctx, http.MethodGet, at(ref, ""), &out)
}

// Start enables and starts an instance, and returns when its program runs.
func (c *Client) Start(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/start"))
}

// Resume wakes an instance, and returns when its program runs.
func (c *Client) Resume(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/resume"))
}

// Pause stops an instance's vCPUs; its memory stays.
func (c *Client) Pause(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/pause"))
}

// Stop ends an instance's VM; a trigger starts it again.
func (c *Client) Stop(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/stop"))
}

// Hibernate saves an instance's memory and ends its VM; a trigger wakes it where it
// was.
func (c *Client) Hibernate(ctx context.Context, ref string) (api.Outcome, error) {
	var out api.Outcome
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/stop"), api.StopRequest{Hibernate: true}, &out)
	return out, err
}

// Restart ends an instance's VM and starts it again.
func (c *Client) Restart(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/restart"))
}

// Disable ends an instance's VM; only Start starts it again.
func (c *Client) Disable(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodPost, at(ref, "/disable"))
}

// Delete ends an instance and removes all of it.
func (c *Client) Delete(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodDelete, at(ref, ""))
}

// Prune deletes instances that have been stopped for longer than age, such as "7d",
// and returns their ids.
func (c *Client) Prune(ctx context.Context, age string) ([]string, error) {
	var out api.Pruned
	err := c.call(ctx, http.MethodPost, "/v1/instances/prune?"+url.Values{"older_than": {age}}.Encode(), &out)
	return out.IDs, err
}

// Exec runs a command in an instance, which it wakes and holds awake. The command
// ends with the Attach, whose Instance is the exec's id.
func (c *Client) Exec(ctx context.Context, ref string, req api.ExecRequest) (*Attach, error) {
	return c.attach(ctx, at(ref, "/exec"), req)
}

func (c *Client) change(ctx context.Context, method, path string) (api.Outcome, error) {
	var out api.Outcome
	return out, c.call(ctx, method, path, &out)
}

func at(ref, rest string) string { return "/v1/instances/" + url.PathEscape(ref) + rest }
