package cloudhypervisor

// The parts of the REST API that this driver uses, as the OpenAPI document of
// upstream names them. The test server checks all that is sent.

// vmConfig is the body of vm.create.
type vmConfig struct {
	CPUs          cpusConfig     `json:"cpus"`
	Memory        memoryConfig   `json:"memory"`
	Payload       payloadConfig  `json:"payload"`
	Disks         []diskConfig   `json:"disks,omitempty"`
	RNG           rngConfig      `json:"rng"`
	Serial        serialConfig   `json:"serial"`
	Console       serialConfig   `json:"console"`
	Vsock         vsockConfig    `json:"vsock"`
	Landlock      bool           `json:"landlock_enable,omitempty"`
	LandlockRules []landlockRule `json:"landlock_rules,omitempty"`
}

type cpusConfig struct {
	Boot   int  `json:"boot_vcpus"`
	Max    int  `json:"max_vcpus"`
	Nested bool `json:"nested"`
}

// memoryConfig has the size 0 where zones have theirs.
type memoryConfig struct {
	Size  int64        `json:"size"`
	Zones []memoryZone `json:"zones"`
}

type memoryZone struct {
	ID     string `json:"id"`
	Size   int64  `json:"size"`
	File   string `json:"file"`
	Shared bool   `json:"shared"`
}

type payloadConfig struct {
	Kernel    string `json:"kernel,omitempty"`
	Cmdline   string `json:"cmdline,omitempty"`
	Initramfs string `json:"initramfs,omitempty"`
}

type diskConfig struct {
	ID           string `json:"id"`
	Path         string `json:"path"`
	ReadOnly     bool   `json:"readonly"`
	Serial       string `json:"serial"`
	ImageType    string `json:"image_type"` // "Raw", "Qcow2"
	BackingFiles bool   `json:"backing_files"`
}

type rngConfig struct {
	Source string `json:"src"`
}

type serialConfig struct {
	Mode string `json:"mode"` // "Tty" is the process's stdout, "Off"
}

type vsockConfig struct {
	ID     string `json:"id"`
	CID    int    `json:"cid"`
	Socket string `json:"socket"`
}

type landlockRule struct {
	Path   string `json:"path"`
	Access string `json:"access"` // "r", "rw"
}

// snapshotConfig is the body of vm.snapshot.
type snapshotConfig struct {
	Destination string `json:"destination_url"`
}

// restoreConfig is the body of vm.restore.
type restoreConfig struct {
	Source string `json:"source_url"`
}

// resizeDisk is the body of vm.resize-disk.
type resizeDisk struct {
	ID   string `json:"id"`
	Size int64  `json:"desired_size"`
}

// pingResponse is the answer of vmm.ping.
type pingResponse struct {
	Version string `json:"version"` // "v53.0"
	PID     int    `json:"pid"`
}

// infoResponse is a part of the answer of vm.info.
type infoResponse struct {
	State string `json:"state"`
}

// The states of a VM.
const (
	stateCreated = "Created"
	stateRunning = "Running"
	statePaused  = "Paused"
)
