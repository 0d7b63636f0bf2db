package mcpguest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
)

type nothing struct{}

type exposeInput struct {
	GuestPort  int    `json:"guest_port" jsonschema:"port on which a program in this VM listens"`
	PublicPort int    `json:"public_port,omitempty" jsonschema:"port of the host, 1024 to 65535; leave it out for any that is free"`
	Protocol   string `json:"protocol,omitempty" jsonschema:"http (the default) or tcp"`
}

type unexposeInput struct {
	GuestPort int `json:"guest_port" jsonschema:"port of this VM"`
}

type keepaliveInput struct {
	TTLMS  int64  `json:"ttl_ms,omitempty" jsonschema:"how long to stay awake, in milliseconds, 1000 to 3600000; a minute if left out; call again to renew"`
	Reason string `json:"reason,omitempty" jsonschema:"what for; people on the host see it"`
}

type snapshotInput struct {
	Name string `json:"name,omitempty" jsonschema:"name of the snapshot, which no other one has"`
}

type forkInput struct {
	Name string `json:"name,omitempty" jsonschema:"name of the copy, which no other instance has"`
}

// done is the result of a tool that has nothing to tell.
type done struct {
	Status string `json:"status"`
}

// forked is the result of fork_me, which returns twice: in this VM and in the copy.
type forked struct {
	Role  string    `json:"role" jsonschema:"parent: this is the VM that was copied; fork: this is the copy"`
	Self  string    `json:"self" jsonschema:"id of the VM that this result is in"`
	Forks []vmBrief `json:"forks" jsonschema:"the copies, where role is parent"`
}

// self adds the tools that are about this VM.
func (t *tools) self(s *mcp.Server) {
	add(s, "self_info", "Tell about this VM: its id, name, ports on the host, what it may ask for, and its lease.", reads(),
		func(ctx context.Context, _ nothing) (out api.Self, err error) {
			return out, t.host.do(ctx, http.MethodGet, "/v1/self", nil, &out)
		})
	add(s, "expose_port", "Open a port of this VM on the host, for programs and people there. Returns its URL.", changes(false, true),
		func(ctx context.Context, in exposeInput) (out api.GuestEndpoint, err error) {
			return out, t.host.do(ctx, http.MethodPost, "/v1/self/expose", api.GuestExpose(in), &out)
		})
	add(s, "unexpose_port", "Close a port that expose_port has opened.", changes(true, true),
		func(ctx context.Context, in unexposeInput) (done, error) {
			return done{"closed"}, t.host.do(ctx, http.MethodDelete, "/v1/self/expose/"+strconv.Itoa(in.GuestPort), nil, nil)
		})
	add(s, "keepalive_acquire", "Keep this VM awake for a time although nobody talks to it. There is one lease; a new one replaces it.", changes(false, true),
		func(ctx context.Context, in keepaliveInput) (out api.LeaseStatus, err error) {
			return out, t.host.do(ctx, http.MethodPost, "/v1/self/keepalive", api.KeepaliveRequest(in), &out)
		})
	add(s, "keepalive_release", "Let this VM sleep when nobody needs it.", changes(false, true),
		func(ctx context.Context, _ nothing) (done, error) {
			return done{"released"}, t.host.do(ctx, http.MethodDelete, "/v1/self/keepalive", nil, nil)
		})
	add(s, "snapshot_me", "Keep this VM as it is now, memory and disk. People on the host can start others from it, or take this one back.", changes(false, false),
		func(ctx context.Context, in snapshotInput) (out api.Snapshot, err error) {
			return out, t.host.do(ctx, http.MethodPost, "/v1/self/snapshot", api.SnapshotRequest(in), &out)
		})
	add(s, "fork_me", "Copy this VM as it is now, with all programs in it. Both go on from here: this tool returns in both, and role tells which one it is.", changes(false, false), t.fork)
}

// fork copies the VM. The copy, and sometimes this one, has the connection broken by that;
// both find out who they are.
func (t *tools) fork(ctx context.Context, in forkInput) (forked, error) {
	var self, now api.Self
	before, err := t.list(ctx)
	if err == nil {
		err = t.host.do(ctx, http.MethodGet, "/v1/self", nil, &self)
	}
	if err != nil {
		return forked{}, err
	}
	req := api.GuestFork{}
	if in.Name != "" {
		req.Names = []string{in.Name}
	}
	var made []api.Child
	err = t.host.do(ctx, http.MethodPost, "/v1/self/fork", req, &made)
	if err == nil {
		return forked{"parent", self.ID, briefs(made)}, nil
	}
	if _, broken := errors.AsType[brokenError](err); !broken {
		return forked{}, err
	}
	if getErr := t.host.do(ctx, http.MethodGet, "/v1/self", nil, &now); getErr != nil {
		return forked{}, errors.Join(err, getErr)
	}
	if now.ID != self.ID {
		return forked{"fork", now.ID, []vmBrief{}}, nil
	}
	after, listErr := t.list(ctx)
	if listErr != nil {
		return forked{}, errors.Join(err, listErr)
	}
	after = slices.DeleteFunc(after, func(c api.Child) bool {
		return slices.ContainsFunc(before, func(b api.Child) bool { return b.ID == c.ID })
	})
	if len(after) == 0 {
		return forked{}, err
	}
	return forked{"parent", now.ID, briefs(after)}, nil
}
