package guestproto

import "github.com/xfeldman/aegisvm/internal/frame"

// The message types. Requests go from the host to the guest.
const (
	TypeStream   Type = "stream"   // StreamHeader -> StreamReply, first on every stream
	TypeHello    Type = "hello"    // Hello -> Welcome, first on the control stream
	TypeSpawn    Type = "spawn"    // Spawn -> Spawned
	TypeKill     Type = "kill"     // Kill -> empty: signal every process of an exec
	TypeFreeze   Type = "freeze"   // Freeze -> Frozen: sync, then stop all user processes
	TypeThaw     Type = "thaw"     // Thaw -> empty: clock, entropy, then let them run
	TypePowerOff Type = "poweroff" // PowerOff -> empty, then the VM ends
	TypeStats    Type = "stats"    // empty -> Stats

	TypeOOM Type = "oom" // event OOM: the guest kernel killed a process for memory
)

// ExecID names a process the host started, unique within its instance.
type ExecID string

// ProgramID is the ExecID of an instance's own command.
const ProgramID ExecID = "program"

// StreamKind says what a yamux stream carries after its header.
type StreamKind string

// The kinds of stream.
const (
	StreamControl StreamKind = "control"
	StreamAttach  StreamKind = "attach"
	StreamDial    StreamKind = "dial"
)

// StreamHeader is the first message on a stream, from the end that opened it.
type StreamHeader struct {
	Kind   StreamKind `json:"kind"`
	Exec   ExecID     `json:"exec,omitempty"`   // attach
	Offset uint64     `json:"offset,omitempty"` // attach: where in the output log to start
	Addr   string     `json:"addr,omitempty"`   // dial: host:port inside the guest
	Copy   *Copy      `json:"copy,omitempty"`   // copy
}

// StreamReply answers a StreamHeader; the Message carries the error, if any.
type StreamReply struct {
	Offset uint64 `json:"offset,omitempty"` // attach: where the log starts; over the one asked for if data is gone
	Stdin  uint64 `json:"stdin,omitempty"`  // attach: stdin bytes taken so far
}

// Hello opens a session's control stream.
type Hello struct {
	MinVersion int       `json:"min_version"`
	Version    int       `json:"version"`
	Rekey      *Magic    `json:"rekey,omitempty"` // the magic of all later openings; see Scanner.Next
	Owned      []Owned   `json:"owned"`           // processes the host still wants; all others are killed
	Identity   *Identity `json:"identity,omitempty"`
	Thaw       *Thaw     `json:"thaw,omitempty"` // done last, after the identity is set
	// Prepare asks for what clones of a template have in common, and nothing that an
	// instance has of its own: no identity, no thaw, and without DiskBytes no disk. Welcome
	// comes when the machine can be saved. It needs TemplateArg.
	Prepare bool `json:"prepare,omitempty"`
	// DiskBytes is the size of the instance's disk. A clone waits until its kernel has
	// heard of it; 0 is the size it has. With Prepare it makes the template one of
	// instances whose disk is new: it has that disk, with the root file system on it.
	DiskBytes int64 `json:"disk_bytes,omitempty"`
	// LonelyOffMS makes the guest power itself off when it has had no session for
	// that long; 0 is never. It is for instances that nobody will come back to.
	LonelyOffMS int64 `json:"lonely_off_ms,omitempty"`
}

// Owned is a process the host still owns, and how far it has its output.
type Owned struct {
	Exec   ExecID `json:"exec"`
	Offset uint64 `json:"offset"`
}

// Identity is what tells an instance from the others of its template.
type Identity struct {
	Instance    string   `json:"instance"` // inst-...
	Hostname    string   `json:"hostname"`
	MachineID   string   `json:"machine_id"`      // 32 hex digits
	BootID      string   `json:"boot_id"`         // UUID; /proc/sys/kernel/random/boot_id
	Clone       bool     `json:"clone,omitempty"` // the source's TCP sockets are destroyed
	Nameservers []string `json:"nameservers,omitempty"`
}

// Thaw sets the clock and reseeds the kernel's random number generator before
// any frozen process runs again. It is harmless when nothing is frozen.
type Thaw struct {
	UnixNano int64  `json:"unix_nano"` // the host's clock as the message was sent
	Entropy  []byte `json:"entropy"`   // 32 bytes from the host's generator
}

// Welcome answers Hello when the guest is ready for work. A guest that cannot
// become ready answers with an error instead (CodeRootfs, CodeVersion).
type Welcome struct {
	Version   int      `json:"version"`    // the one both speak from now on
	Harness   string   `json:"harness"`    // build version of the guest's PID 1
	Abilities []string `json:"abilities"`  // optional parts of the protocol, sorted
	BootNonce string   `json:"boot_nonce"` // changes with every boot of this kernel, not with a wake
	Execs     []Exec   `json:"execs"`      // the owned processes that exist
	// WorkedUS is how many microseconds the guest had Hello in work, by its own clock: the
	// rest of the time to the answer was on the way. It has told itself the time as it was
	// at the end of the work.
	WorkedUS int64 `json:"worked_us,omitempty"`
}

// Exec is the state of one process.
type Exec struct {
	ID      ExecID `json:"id"`
	Running bool   `json:"running"`
	End     uint64 `json:"end"` // offset of the end of its output log so far
}

// Spawn starts a process in its own session and cgroup.
type Spawn struct {
	ID      ExecID         `json:"id"`
	Command []string       `json:"command"`           // looked up on PATH of Env
	Env     []string       `json:"env"`               // the whole environment, KEY=VALUE
	Workdir string         `json:"workdir,omitempty"` // "" is /
	User    string         `json:"user,omitempty"`    // name or uid[:group or gid]; "" is root
	TTY     *frame.Winsize `json:"tty,omitempty"`     // a terminal of that size; stdout carries it all
	Stdin   bool           `json:"stdin,omitempty"`   // keep stdin open; else it is /dev/null
	Memory  int            `json:"memory,omitempty"`  // bytes of output kept in memory; 0 is the default
	Ring    int64          `json:"ring,omitempty"`    // bytes of output kept on disk after that; 0 is none
}

// Spawned answers Spawn. A command that cannot be started is an error with
// CodeNoCommand or CodeNotExecutable, and leaves nothing behind.
type Spawned struct {
	PID int `json:"pid"`
}

// Kill signals all processes of an exec, its children included.
type Kill struct {
	ID     ExecID `json:"id"`
	Signal int    `json:"signal"` // Linux number
}

// Freeze stops all user processes before a save.
type Freeze struct {
	DeadlineMS int `json:"deadline_ms"` // after it the save goes on without the stuck ones
}

// Frozen answers Freeze.
type Frozen struct {
	Stuck []string `json:"stuck,omitempty"` // "pid name" of processes that did not stop
}

// PowerOff ends the VM in good order: terminate, wait, kill, sync, power off.
type PowerOff struct {
	GraceMS int `json:"grace_ms"` // between SIGTERM and SIGKILL
}

// Stats is what the guest says of its own use. Display only: never a basis of
// decisions about other instances.
type Stats struct {
	MemoryTotal     int64 `json:"memory_total"`     // bytes
	MemoryAvailable int64 `json:"memory_available"` // bytes
	DiskTotal       int64 `json:"disk_total"`       // bytes of the instance's disk
	DiskUsed        int64 `json:"disk_used"`        // bytes
	Processes       int   `json:"processes"`        // user processes
	CPUUS           int64 `json:"cpu_us,omitempty"` // microseconds that user processes have used, ever
}

// OOM tells that the guest's kernel killed a process because memory ran out. As an
// event it comes at once; as a Notice frame it stands in the output of the exec,
// before its end, so that whoever reads the status has read why.
type OOM struct {
	Exec ExecID `json:"exec,omitempty"` // the exec it belonged to
	Name string `json:"name"`           // of the process
}

// StdinWindow bounds the stdin bytes of a process that the host has sent and the
// guest has not acknowledged.
const StdinWindow = 256 << 10
