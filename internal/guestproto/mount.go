package guestproto

// TypeMount asks for folders of the host: Mount -> empty. What is mounted already stays
// as it is, so that the request may be repeated after a wake. Only guests with
// AbilityMount have it.
const TypeMount Type = "mount"

// AbilityMount is the name of TypeMount in Welcome.
const AbilityMount = "mount"

// MountPort is where the host serves its folders, on the gateway of the VM's network.
const MountPort = 2049

// Mount names the host's folders that the guest is to have.
type Mount struct {
	Mounts []MountPoint `json:"mounts"`
	// Reconnect says that the server is another one than before, as after the end of a
	// daemon: the guest ends its connections to the old one. It would go on waiting for
	// answers on them until it gives up, because nobody is left to tell it.
	Reconnect bool `json:"reconnect,omitempty"`
}

// MountPoint is one export of the server on the gateway, and where it goes.
type MountPoint struct {
	Export   string `json:"export"` // as the server names it: "/" or a path
	Target   string `json:"target"` // absolute, made if it is not there
	ReadOnly bool   `json:"read_only,omitempty"`
}
