package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/xfeldman/aegisvm/api"
)

// Schedule has a command run in an instance at times, and wakes it for that.
func (c *Client) Schedule(ctx context.Context, ref string, req api.ScheduleRequest) (api.Schedule, error) {
	var out api.Schedule
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/schedules"), req, &out)
	return out, err
}

// Schedules returns the schedules of an instance, those of its agent last.
func (c *Client) Schedules(ctx context.Context, ref string) ([]api.Schedule, error) {
	var out []api.Schedule
	return out, c.call(ctx, http.MethodGet, at(ref, "/schedules"), &out)
}

// Unschedule forgets a schedule. A run of it that is under way goes on.
func (c *Client) Unschedule(ctx context.Context, ref, id string) error {
	var out api.Outcome
	return c.call(ctx, http.MethodDelete, at(ref, "/schedules/"+url.PathEscape(id)), &out)
}

// Set changes how an instance sleeps and what it may reach, at once.
func (c *Client) Set(ctx context.Context, ref string, req api.ChangeRequest) (api.InstanceInfo, error) {
	var out api.InstanceInfo
	_, err := c.exchange(ctx, http.MethodPatch, at(ref, ""), req, &out)
	return out, err
}
