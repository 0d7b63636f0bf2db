package api

import (
	"slices"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// Error is the body of every answer that is not 2xx.
type Error struct {
	Error string `json:"error"`           // what happened
	Code  string `json:"code"`            // a fault.Kind, such as "not_found"
	Hint  string `json:"hint,omitempty"`  // the next command to type
	Blame string `json:"blame,omitempty"` // whose fault: host, driver, image, guest, program
	// Exit is the status a shell would give, for programs that could not be
	// started: 126 not executable, 127 not found.
	Exit int `json:"exit,omitempty"`
}

// Status answers GET /v1/status.
type Status struct {
	Status       string    `json:"status"`  // always "running"
	Version      string    `json:"version"` // of the daemon
	PID          int       `json:"pid"`
	Home         string    `json:"home"`
	Backend      string    `json:"backend"`   // the driver, such as "qemu"
	Accel        string    `json:"accel"`     // "kvm", "hvf", "tcg"
	Isolation    string    `json:"isolation"` // "hardware", "emulated"
	VMM          string    `json:"vmm"`       // version of the VMM
	Capabilities Abilities `json:"capabilities"`
	Instances    int       `json:"instances"` // how many run now
	// Router is the address of the HTTP router, or "" where it could not be opened, or is
	// switched off.
	Router string `json:"router"`
}

// Abilities says what the driver in use can do.
type Abilities struct {
	Pause bool `json:"pause"`
	Save  bool `json:"save"`
	Fork  bool `json:"fork"`
}

// RunRequest is the body of POST /v1/run. The connection is upgraded to an attach
// stream ("Upgrade: aegis-attach") once the program runs; until then errors are
// ordinary answers. When the connection ends, or the program does, the instance is
// deleted.
type RunRequest struct {
	Command  []string          `json:"command"` // may be missing where the kit has one
	Env      map[string]string `json:"env,omitempty"`
	Secrets  []string          `json:"secrets,omitempty"` // names of stored secrets for the environment; "*" is all
	Handle   string            `json:"handle,omitempty"`
	Workdir  string            `json:"workdir,omitempty"`
	User     string            `json:"user,omitempty"`
	ImageRef string            `json:"image_ref,omitempty"`
	Pull     string            `json:"pull,omitempty"` // "missing" (the default), "always" or "never"
	MemoryMB int64             `json:"memory_mb,omitempty"`
	VCPUs    int               `json:"vcpus,omitempty"`
	DiskMB   int64             `json:"disk_mb,omitempty"`
	VMM      string            `json:"vmm,omitempty"` // that the daemon must run VMs on; another is a conflict
	Expose   []ExposeRequest   `json:"expose,omitempty"`
	// Egress is what the VM may reach: "none", "public" (the default) or "all".
	// AllowHosts names more: names, addresses and prefixes, with a port or without; with
	// some and no Egress that is all it may reach.
	Egress     string   `json:"egress,omitempty"`
	AllowHosts []string `json:"allow_hosts,omitempty"`
	// Workspace is what stands at /workspace: the name of a workspace, which is made on
	// demand, or an absolute path of the host's, which exists; "" is a folder that goes
	// with the instance. Mounts are other folders.
	Workspace         string  `json:"workspace,omitempty"`
	WorkspaceReadOnly bool    `json:"workspace_read_only,omitempty"`
	Mounts            []Mount `json:"mounts,omitempty"`
	// Kit and Capabilities are as in CreateRequest.
	Kit          string        `json:"kit,omitempty"`
	Capabilities *Capabilities `json:"capabilities,omitempty"`
	// PauseAfterS and StopAfterS are as in CreateRequest, but nil is never. The command holds
	// its VM awake.
	PauseAfterS *int64   `json:"pause_after_s,omitempty"`
	StopAfterS  *int64   `json:"stop_after_s,omitempty"`
	Stdin       bool     `json:"stdin,omitempty"`
	TTY         *Winsize `json:"tty,omitempty"`
}

// Winsize is the size of a terminal in characters.
type Winsize = frame.Winsize

// AttachProtocol is the value of the Upgrade header of attach streams.
const AttachProtocol = "aegis-attach"

// ErrorOf returns the wire form of err.
func ErrorOf(err error) Error {
	return Error{
		Error: err.Error(),
		Code:  string(fault.KindOf(err)),
		Hint:  fault.HintOf(err),
		Blame: string(fault.BlameOf(err)),
		Exit:  fault.ExitOf(err),
	}
}

// StatusOf returns the HTTP status of answers that are errors of a kind. The core knows
// this package and is not to know net/http: so they are numbers.
func StatusOf(k fault.Kind) int {
	switch k {
	case fault.NotFound:
		return 404
	case fault.Conflict:
		return 409
	case fault.Invalid:
		return 400
	case fault.Denied:
		return 403
	case fault.Unavailable:
		return 503
	case fault.Exhausted:
		return 507
	case fault.TooLarge:
		return 413
	case fault.Timeout:
		return 504
	case fault.Canceled:
		return 499 // as nginx calls a client that has gone
	case fault.Internal:
	}
	return 500
}

// Fault returns what the wire form tells as an error. A code that this version does
// not know, or none, is fault.Internal.
func (e Error) Fault() *fault.Error {
	f := &fault.Error{Kind: fault.Internal, Msg: e.Error, Hint: e.Hint, Blame: fault.Blame(e.Blame), Exit: e.Exit}
	if k := fault.Kind(e.Code); slices.Contains(fault.Kinds(), k) {
		f.Kind = k
	}
	if f.Msg == "" {
		f.Msg = "an error without a message"
	}
	return f
}

// Ready is what aegisd writes to the descriptor that ReadyFD names, once, when it
// serves or has given up.
type Ready struct {
	PID   int    `json:"pid"`
	Error *Error `json:"error,omitempty"`
}

// ReadyFD is the environment variable with the number of the descriptor on which
// the program that starts aegisd waits for Ready.
const ReadyFD = "AEGIS_READY_FD"

// InstanceHeader is the header of a 101 answer that names the instance.
const InstanceHeader = "Aegis-Instance"
