package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// GuestError is the body of every answer of the Guest API that is not 2xx.
type GuestError struct {
	Error GuestErrorBody `json:"error"`
}

// GuestErrorBody says what went wrong.
type GuestErrorBody struct {
	Message string `json:"message"`
	Code    string `json:"code"`           // a fault.Kind, such as "denied", or "rate_limited"
	Hint    string `json:"hint,omitempty"` // what to do, mostly on the host
}

// Self answers GET /v1/self of the Guest API.
type Self struct {
	ID           string          `json:"id"`
	Handle       string          `json:"handle"`
	State        string          `json:"state"`
	Image        string          `json:"image"`
	ParentID     string          `json:"parent_id"` // "" without a parent
	Endpoints    []GuestEndpoint `json:"endpoints"`
	MemoryMB     int64           `json:"memory_mb"`
	VCPUs        int             `json:"vcpus"`
	Capabilities Capabilities    `json:"capabilities"`
	Children     int             `json:"children"` // live ones

	LeaseStatus
}

// GuestEndpoint is a port of an instance that is open on the host.
type GuestEndpoint struct {
	GuestPort  int    `json:"guest_port"`
	PublicPort int    `json:"public_port"`
	Protocol   string `json:"protocol"`
	URL        string `json:"url"` // for clients on the host
}

// LeaseStatus is the lease of an instance, in what describes it.
type LeaseStatus struct {
	LeaseHeld      bool       `json:"lease_held"`
	LeaseReason    string     `json:"lease_reason,omitempty"`
	LeaseExpiresAt *time.Time `json:"lease_expires_at,omitempty"`
}

// SpawnRequest is the body of POST /v1/instances of the Guest API. The answer is a Child.
type SpawnRequest struct {
	Command  []string          `json:"command"`
	Handle   string            `json:"handle,omitempty"`
	ImageRef string            `json:"image_ref,omitempty"` // "" is the caller's
	Workdir  string            `json:"workdir,omitempty"`
	User     string            `json:"user,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	Secrets  []string          `json:"secrets,omitempty"`
	MemoryMB int64             `json:"memory_mb,omitempty"` // 0 is the caller's, or what it may give
	VCPUs    int               `json:"vcpus,omitempty"`     // the same
	Exposes  []GuestExpose     `json:"exposes,omitempty"`
	// Workspace is what stands at /workspace of the child: "" is a folder of its own,
	// "." or "/workspace" the caller's, a path with a "/" a folder below that, which has
	// to be there; a name is that of a workspace on the host.
	Workspace string `json:"workspace,omitempty"`
	// Capabilities of the child; nil is what the caller has, with one generation less.
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// Wait delays the answer until the child's command runs; it is an error if that
	// fails. The child stays then, stopped.
	Wait bool `json:"wait,omitempty"`
}

// GuestExpose is a port to be opened: the body of POST /v1/self/expose and
// /v1/instances/{id}/expose, and a part of a SpawnRequest, where a number will do.
type GuestExpose struct {
	GuestPort  int    `json:"guest_port"`
	PublicPort int    `json:"public_port,omitempty"` // of the host; 0 is any, and is kept
	Protocol   string `json:"protocol,omitempty"`    // "http" (the default) or "tcp"
}

// UnmarshalJSON takes a number too, and "port" for "guest_port".
func (e *GuestExpose) UnmarshalJSON(b []byte) error {
	*e = GuestExpose{}
	if json.Unmarshal(b, &e.GuestPort) == nil {
		return nil
	}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	for key, value := range in {
		var to any
		switch key {
		case "guest_port", "port":
			to = &e.GuestPort
		case "public_port":
			to = &e.PublicPort
		case "protocol":
			to = &e.Protocol
		default:
			return fmt.Errorf("json: unknown field %q", key)
		}
		if err := json.Unmarshal(value, to); err != nil {
			return err
		}
	}
	return nil
}

// Child is an instance that was started over the Guest API, as its parent sees it.
type Child struct {
	ID         string          `json:"id"`
	Handle     string          `json:"handle"`
	State      string          `json:"state"`
	Hibernated bool            `json:"hibernated,omitempty"`
	ParentID   string          `json:"parent_id"`
	Image      string          `json:"image,omitempty"`
	Command    []string        `json:"command,omitempty"`
	CreatedAt  time.Time       `json:"created_at"`
	Endpoints  []GuestEndpoint `json:"endpoints"`
	Why        string          `json:"why,omitempty"` // why it is stopped
}

// KeepaliveRequest is the body of POST /v1/self/keepalive. The answer is a LeaseStatus.
type KeepaliveRequest struct {
	TTLMS  int64  `json:"ttl_ms,omitempty"` // 0 is a minute
	Reason string `json:"reason,omitempty"`
}

// GuestFork is the body of POST /v1/self/fork and /v1/instances/{id}/fork. The answer is a
// list of Child.
type GuestFork struct {
	Names []string `json:"names,omitempty"` // one for each fork
	Count int      `json:"count,omitempty"` // without Names; 0 is 1
}

// Emitted answers POST /v1/tether/send of the Guest API, whose body is a Frame. The frame is
// stored, unless it is a delta.
type Emitted struct {
	MsgID string `json:"msg_id"`
	Seq   int64  `json:"seq,omitempty"`
}
