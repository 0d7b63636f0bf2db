package api

import "time"

// CreateRequest is the body of POST /v1/instances. The answer is a Created.
type CreateRequest struct {
	Command    []string          `json:"command,omitempty"` // may be missing when the handle exists, or the kit has one
	Env        map[string]string `json:"env,omitempty"`
	Secrets    []string          `json:"secrets,omitempty"` // as in RunRequest; added to those of a handle that exists
	Handle     string            `json:"handle,omitempty"`
	ImageRef   string            `json:"image_ref,omitempty"`
	Pull       string            `json:"pull,omitempty"` // as in RunRequest
	MemoryMB   int64             `json:"memory_mb,omitempty"`
	VCPUs      int               `json:"vcpus,omitempty"`
	DiskMB     int64             `json:"disk_mb,omitempty"`
	VMM        string            `json:"vmm,omitempty"` // as in RunRequest
	Workdir    string            `json:"workdir,omitempty"`
	User       string            `json:"user,omitempty"`
	Egress     string            `json:"egress,omitempty"`      // as in RunRequest
	AllowHosts []string          `json:"allow_hosts,omitempty"` // as in RunRequest
	// Kit is the name of the kit whose defaults fill what is not said here.
	Kit string `json:"kit,omitempty"`
	// Capabilities is what the instance may ask of the host; nil is its kit's, else nothing.
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// Snapshot is the id or name of one that the instance starts from: its program goes on where
	// it was. There is no Command then, nor what else was settled when it was taken.
	Snapshot string          `json:"snapshot,omitempty"`
	Expose   []ExposeRequest `json:"expose,omitempty"` // ports that are open as long as the instance is there and not disabled
	// Workspace, WorkspaceReadOnly and Mounts are as in RunRequest.
	Workspace         string  `json:"workspace,omitempty"`
	WorkspaceReadOnly bool    `json:"workspace_read_only,omitempty"`
	Mounts            []Mount `json:"mounts,omitempty"`
	// PauseAfterS is how many seconds nothing must hold the instance before it is
	// paused; 0 is never, nil the daemon's default.
	PauseAfterS *int64 `json:"pause_after_s,omitempty"`
	// StopAfterS is how many seconds an instance must have been paused before its memory
	// is saved and its VM ended; 0 is never, nil the daemon's default.
	StopAfterS *int64 `json:"stop_after_s,omitempty"`
	// IdlePolicy is "default", or "leases_only" for an instance that sleeps whatever its
	// guest does.
	IdlePolicy string `json:"idle_policy,omitempty"`
	// Wait delays the answer until the program runs; it is an error if that fails. A
	// new instance stays then, stopped.
	Wait bool `json:"wait,omitempty"`
}

// Created answers POST /v1/instances: 201 for a new instance, 200 for one of that
// handle that was stopped and is started again.
type Created struct {
	ID       string   `json:"id"`
	State    string   `json:"state"` // "starting"; with Wait "running"
	Command  []string `json:"command"`
	Handle   string   `json:"handle"`
	ImageRef string   `json:"image_ref"`
	Kit      string   `json:"kit"`

	Endpoints []Endpoint `json:"endpoints"`
}

// The states of an instance on the wire.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StatePaused   = "paused"
	StateStopped  = "stopped"
)

// Instance is one line of GET /v1/instances.
type Instance struct {
	ID                string     `json:"id"`
	Handle            string     `json:"handle"`
	State             string     `json:"state"`
	Enabled           bool       `json:"enabled"`
	Command           []string   `json:"command"`
	ImageRef          string     `json:"image_ref"`
	Kit               string     `json:"kit"`
	ParentID          string     `json:"parent_id,omitempty"` // of the instance that started it
	CreatedAt         time.Time  `json:"created_at"`
	UpdatedAt         time.Time  `json:"updated_at"`
	LastActiveAt      *time.Time `json:"last_active_at,omitempty"`
	StoppedAt         *time.Time `json:"stopped_at,omitempty"`
	ActiveConnections int        `json:"active_connections"`
	Endpoints         []Endpoint `json:"endpoints"`
}

// InstanceInfo answers GET /v1/instances/{id}.
type InstanceInfo struct {
	Instance
	ImageID    string `json:"image_id,omitempty"` // that image_ref named when the instance was made
	Hibernated bool   `json:"hibernated"`
	KitVersion string `json:"kit_version"` // of when the instance was made
	// GatewayRunning says that the programs run which its kit runs beside it.
	GatewayRunning bool   `json:"gateway_running"`
	Driver         string `json:"driver"`
	// HarnessVersion is that of process 1 in the VM; "" while there is none, or it was
	// not asked yet.
	HarnessVersion string   `json:"harness_version"`
	Isolation      string   `json:"isolation"`
	MemoryMB       int64    `json:"memory_mb"`
	VCPUs          int      `json:"vcpus"`
	DiskMB         int64    `json:"disk_mb"`
	MemoryUsed     int64    `json:"memory_used"` // bytes of the host, now
	DiskUsed       int64    `json:"disk_used"`   // bytes of the host
	PauseAfter     int64    `json:"pause_after_s"`
	StopAfter      int64    `json:"stop_after_s"`
	IdlePolicy     string   `json:"idle_policy"`    // "default" or "leases_only"
	Busy           string   `json:"busy,omitempty"` // what the guest does that keeps it awake without a hold
	ExposePorts    []int    `json:"expose_ports"`   // of the guest
	Egress         string   `json:"egress"`         // what it may reach: "none", "public", "all"
	AllowHosts     []string `json:"allow_hosts,omitempty"`
	Traffic        Traffic  `json:"traffic"`
	Denials        []Denial `json:"denials,omitempty"` // the last attempts that were refused, oldest first
	Why            string   `json:"why,omitempty"`     // why it is stopped
	Trouble        string   `json:"trouble,omitempty"` // what its VM suffers from this host, and what to do
	Holds          []Hold   `json:"holds"`             // what keeps it awake
	// SecretKeys names the secrets in the environment of its program and execs; "*" is
	// all that are stored.
	SecretKeys []string `json:"secret_keys"`
	// Workspace is the name or path of its workspace; of one that goes with the instance,
	// the folder. WorkspaceDir is the folder on the host.
	Workspace         string  `json:"workspace"`
	WorkspaceDir      string  `json:"workspace_dir"`
	WorkspaceReadOnly bool    `json:"workspace_read_only,omitempty"`
	Mounts            []Mount `json:"mounts,omitempty"`
	// Capabilities is what it may ask of the host; nil is nothing.
	Capabilities *Capabilities `json:"capabilities,omitempty"`

	LeaseStatus
}

// Hold is one reason for an instance to be awake.
type Hold struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
}

// StopRequest is the body of POST /v1/instances/{id}/stop; without one it is empty.
type StopRequest struct {
	Hibernate bool `json:"hibernate,omitempty"` // save the memory first, and wake where it was
}

// Outcome answers requests that change an instance's state: what happened.
type Outcome struct {
	// Status is what was done: "starting", "stopped", "restarting", "disabled", "paused",
	// "running", "deleted". The answer to a start or restart comes when that has
	// succeeded, and not with the first sign of it.
	Status string `json:"status"`
	ID     string `json:"id,omitempty"`    // of the instance that was asked for by id or handle
	State  string `json:"state,omitempty"` // the instance's state as the answer is sent
}

// Pruned answers POST /v1/instances/prune.
type Pruned struct {
	Pruned int      `json:"pruned"`
	IDs    []string `json:"ids"`
}

// ExecRequest is the body of POST /v1/instances/{id}/exec. With the header "Upgrade:
// aegis-attach" the answer is an attach stream; without, NDJSON: an ExecStarted, log
// entries, an ExecDone.
type ExecRequest struct {
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	Workdir string            `json:"workdir,omitempty"`
	User    string            `json:"user,omitempty"`
	Stdin   bool              `json:"stdin,omitempty"` // attach streams only
	TTY     *Winsize          `json:"tty,omitempty"`   // attach streams only
}

// ExecStarted is the first line of an exec's NDJSON.
type ExecStarted struct {
	ExecID    string    `json:"exec_id"`
	StartedAt time.Time `json:"started_at"`
}

// ExecDone is the last line of an exec's NDJSON. A line that is an Error takes its
// place when the exec ended without a status.
type ExecDone struct {
	ExecID   string `json:"exec_id"`
	ExitCode int    `json:"exit_code"`
	Done     bool   `json:"done"` // true
}

// LogEntry is one line of GET /v1/instances/{id}/logs and of an exec's NDJSON.
type LogEntry struct {
	TS         time.Time `json:"ts"`
	Stream     string    `json:"stream"` // "stdout", "stderr"
	Line       string    `json:"line"`
	Bytes      []byte    `json:"bytes,omitempty"` // the line as it was, where it is not UTF-8
	Source     string    `json:"source"`          // "server" (the program), "exec", "system"
	InstanceID string    `json:"instance_id"`
	ExecID     string    `json:"exec_id,omitempty"`
	// Open says that the line has no end, or not yet: the last words of a process, a
	// prompt, or a part of a line too long to be kept whole.
	Open bool `json:"open,omitempty"`
	// End says that a run of the instance's program is over, in a line of AegisVM's own:
	// it has exited, could not be started, or went with its VM.
	End bool `json:"end,omitempty"`
}

// Event is one line of GET /v1/events: a change of state.
type Event struct {
	TS     time.Time `json:"ts"`
	ID     string    `json:"id"`
	Handle string    `json:"handle"`
	From   string    `json:"from"` // the state's own name: booting, pausing, ...
	To     string    `json:"to"`
	Why    string    `json:"why"`
}
