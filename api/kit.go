package api

// Kit is one kit in the answer to GET /v1/kits.
type Kit struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Description string   `json:"description"`
	Usage       string   `json:"usage,omitempty"`
	Status      string   `json:"status"`            // "ok" or "broken"
	Missing     []string `json:"missing,omitempty"` // what it is broken for want of
	// Image is the image that the kit's instances stand on; "" is the default one.
	Image    string      `json:"image"`
	Defaults KitDefaults `json:"defaults"`
	// Config lists the files that configure an instance of the kit.
	Config []KitConfig `json:"config"`
	// ReferencedEnv names the environment variables that the defaults of its files speak of.
	ReferencedEnv []string `json:"referenced_env"`
}

// KitDefaults is what an instance of a kit has where its request says nothing.
type KitDefaults struct {
	Command      []string      `json:"command,omitempty"`
	Capabilities *Capabilities `json:"capabilities,omitempty"`
}

// KitConfig is a file that configures an instance of a kit.
type KitConfig struct {
	Path  string `json:"path"`  // of the kit's own: in the workspace; of a sidecar's: in kits/<handle>/ of the home
	Label string `json:"label"` // what people call it
}

// MaxKitConfig is the most bytes that the file of a sidecar may have.
const MaxKitConfig = 1 << 20

// The statuses of a kit.
const (
	KitOK     = "ok"
	KitBroken = "broken"
)
