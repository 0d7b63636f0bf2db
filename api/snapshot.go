package api

import "time"

// ForkRequest is the body of POST /v1/instances/{id}/fork. The answer is a list of Forked.
type ForkRequest struct {
	Names   []string        `json:"names,omitempty"`   // one for each fork
	Count   int             `json:"count,omitempty"`   // of forks named after their ids, where there are no Names; 0 is 1
	Expose  []ExposeRequest `json:"expose,omitempty"`  // beside the source's ports, which are open on other numbers of the host
	Secrets []string        `json:"secrets,omitempty"` // what later execs and starts get; what the memory holds it holds
}

// Forked is one fork of an instance: an instance of its own.
type Forked struct {
	ID        string     `json:"id"`
	Handle    string     `json:"handle"`
	Endpoints []Endpoint `json:"endpoints"`
	// Cold says that there was no memory to go on with: the source was stopped. The fork has a
	// copy of its disk, and its program was started anew.
	Cold bool `json:"cold,omitempty"`
	// Workspace is "copied", or "shared": the fork works in the very folder that the source
	// works in, and no lock reaches from one VM to the other.
	Workspace string `json:"workspace"`
}

// SnapshotRequest is the body of POST /v1/instances/{id}/snapshots. The answer is a Snapshot.
type SnapshotRequest struct {
	Name string `json:"name,omitempty"` // that no other snapshot has; "" is its id
}

// Snapshot is an instance as it was at one moment.
type Snapshot struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Size       int64     `json:"size"` // bytes of the host's disk, without what it shares with older ones
	CreatedAt  time.Time `json:"created_at"`
	InstanceID string    `json:"instance_id"` // what it was taken of, which may be gone
	Handle     string    `json:"handle"`      // the name that had
	Command    []string  `json:"command"`
	MemoryMB   int64     `json:"memory_mb"`
	VCPUs      int       `json:"vcpus"`
	// Cold says that it has no memory: the instance was stopped. What starts from it starts
	// its program anew.
	Cold bool `json:"cold,omitempty"`
}

// RestoreRequest is the body of POST /v1/instances/{id}/restore. The answer is an Outcome.
type RestoreRequest struct {
	Snapshot string `json:"snapshot"` // id or name of one of the instance itself
}
