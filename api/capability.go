package api

// Capabilities is what an instance may ask of the host over the Guest API. The host keeps
// them, and a guest cannot change them. A list that is missing allows nothing; "*" in a
// list allows all.
type Capabilities struct {
	Spawn             bool     `json:"spawn,omitempty"`              // start children at all
	SpawnDepth        int      `json:"spawn_depth,omitempty"`        // generations below this one: 1 is children that have none
	MaxChildren       int      `json:"max_children,omitempty"`       // live ones, at a time
	AllowedImages     []string `json:"allowed_images,omitempty"`     // next to the instance's own
	AllowedWorkspaces []string `json:"allowed_workspaces,omitempty"` // named ones, next to the instance's own and what is below it
	AllowedSecrets    []string `json:"allowed_secrets,omitempty"`    // which it may hand on to children
	MaxMemoryMB       int64    `json:"max_memory_mb,omitempty"`      // of a child; 0 is the instance's own
	MaxVCPUs          int      `json:"max_vcpus,omitempty"`          // of a child; 0 is the instance's own
	MaxExposePorts    int      `json:"max_expose_ports,omitempty"`   // ports it may open on the host, of its own and of its children each
	LLM               []string `json:"llm,omitempty"`                // model servers of the host: "ollama", "lmstudio", "vllm"
}
