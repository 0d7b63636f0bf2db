package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
)

// Fork makes copies of an instance as it is now, and returns when their programs run.
// Either all are made or none.
func (c *Client) Fork(ctx context.Context, ref string, req api.ForkRequest) ([]api.Forked, error) {
	var out []api.Forked
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/fork"), req, &out)
	return out, err
}

// Snapshot keeps an instance as it is now. A name of "" is the snapshot's id.
func (c *Client) Snapshot(ctx context.Context, ref, name string) (api.Snapshot, error) {
	var out api.Snapshot
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/snapshots"), api.SnapshotRequest{Name: name}, &out)
	return out, err
}

// Snapshots returns all snapshots, oldest first.
func (c *Client) Snapshots(ctx context.Context) ([]api.Snapshot, error) {
	var out []api.Snapshot
	return out, c.call(ctx, http.MethodGet, "/v1/snapshots", &out)
}

// DeleteSnapshot removes a snapshot, by its id or name. Instances that were started from it
// go on.
func (c *Client) DeleteSnapshot(ctx context.Context, ref string) (api.Outcome, error) {
	return c.change(ctx, http.MethodDelete, "/v1/snapshots/"+url.PathEscape(ref))
}

// Restore takes an instance back to a snapshot of itself, and returns when its program
// goes on. What it is now is lost.
func (c *Client) Restore(ctx context.Context, ref, snapshot string) (api.Outcome, error) {
	var out api.Outcome
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/restore"), api.RestoreRequest{Snapshot: snapshot}, &out)
	return out, err
}
