package capability

import (
	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Holder is an instance that asks: its rights, and what it is itself.
type Holder struct {
	Rights  api.Capabilities
	Memory  size.Bytes
	VCPUs   int
	Image   string   // as it was asked for when the holder was made
	Secrets []string // names of its own; Any is all that are stored
}

// Child is what a holder wants to start. What is zero it does not ask for.
type Child struct {
	Memory    size.Bytes // 0 is Holder.DefaultMemory
	VCPUs     int        // 0 is Holder.DefaultVCPUs
	Image     string     // "" is the holder's
	Workspace string     // a named one; the holder's own, and what is below it, needs no right
	Secrets   []string
	Ports     int               // open on the host
	Rights    *api.Capabilities // nil is Inherited
}

// MaxMemory bounds a child.
func (h Holder) MaxMemory() size.Bytes {
	return bound(size.Bytes(h.Rights.MaxMemoryMB)*size.MiB, h.Memory)
}

// MaxVCPUs bounds a child.
func (h Holder) MaxVCPUs() int { return bound(h.Rights.MaxVCPUs, h.VCPUs) }

// DefaultMemory is what a child gets that asks for nothing: what the holder has, if it may
// give that.
func (h Holder) DefaultMemory() size.Bytes { return min(h.Memory, h.MaxMemory()) }

// DefaultVCPUs is the same in vCPUs.
func (h Holder) DefaultVCPUs() int { return min(h.VCPUs, h.MaxVCPUs()) }

// Grant says why a child is not allowed, or returns its rights. How many there are already
// is not its matter.
func (h Holder) Grant(c Child) (api.Capabilities, error) {
	if err := h.maySpawn(); err != nil {
		return api.Capabilities{}, err
	}
	if err := h.sizes(c); err != nil {
		return api.Capabilities{}, err
	}
	if err := h.names(c); err != nil {
		return api.Capabilities{}, err
	}
	rights := Inherited(h.Rights)
	if c.Rights == nil {
		return rights, nil
	}
	if err := within(*c.Rights, rights); err != nil {
		return api.Capabilities{}, err
	}
	return cloned(*c.Rights), nil
}

func (h Holder) maySpawn() error {
	switch r := h.Rights; {
	case !r.Spawn:
		return denied("this instance may not start others", "spawn")
	case r.SpawnDepth < 1:
		return denied("there may be no generation below this instance", "spawn_depth")
	case r.MaxChildren < 1:
		return denied("this instance may have no children", "max_children")
	}
	return nil
}

func (h Holder) sizes(c Child) error {
	switch {
	case c.Memory > h.MaxMemory():
		return denied("%v of memory is more than the %v that a child of this instance may have", "max_memory_mb", c.Memory, h.MaxMemory())
	case c.VCPUs > h.MaxVCPUs():
		return denied("%d vCPUs are more than the %d that a child of this instance may have", "max_vcpus", c.VCPUs, h.MaxVCPUs())
	case c.Ports > h.Rights.MaxExposePorts:
		return denied("%d ports are more than the %d that a child of this instance may open", "max_expose_ports", c.Ports, h.Rights.MaxExposePorts)
	}
	return nil
}

func (h Holder) names(c Child) error {
	if c.Image != "" && c.Image != h.Image && !Has(h.Rights.AllowedImages, c.Image) {
		return denied("the image %q is not among those of this instance's children", "allowed_images", c.Image)
	}
	if c.Workspace != "" && !Has(h.Rights.AllowedWorkspaces, c.Workspace) {
		return denied("the workspace %q is not among those of this instance's children", "allowed_workspaces", c.Workspace)
	}
	for _, s := range c.Secrets {
		if !Has(h.Rights.AllowedSecrets, s) {
			return denied("the secret %q may not be handed on", "allowed_secrets", s)
		}
		if !Has(h.Secrets, s) {
			return fault.New(fault.Denied, "this instance does not have the secret %q itself", s).
				WithHint("on the host: aegis instance secrets")
		}
	}
	return nil
}

// within says why rights that were asked for are more than there are to give.
func within(asked, most api.Capabilities) error {
	if err := Check(asked); err != nil {
		return err
	}
	for _, n := range []struct {
		name        string
		asked, most int64
	}{
		{"spawn", truth(asked.Spawn), truth(most.Spawn)},
		{"spawn_depth", int64(asked.SpawnDepth), int64(most.SpawnDepth)},
		{"max_children", int64(asked.MaxChildren), int64(most.MaxChildren)},
		{"max_memory_mb", asked.MaxMemoryMB, most.MaxMemoryMB},
		{"max_vcpus", int64(asked.MaxVCPUs), int64(most.MaxVCPUs)},
		{"max_expose_ports", int64(asked.MaxExposePorts), int64(most.MaxExposePorts)},
	} {
		if n.asked > n.most {
			return denied("a child of this instance cannot have %s = %d: there is no more than %d", n.name, n.name, n.asked, n.most)
		}
	}
	has := lists(&most)
	for i, l := range lists(&asked) {
		for _, item := range *l.list {
			if !Has(*has[i].list, item) {
				return denied("a child of this instance cannot have %q in %s", l.name, item, l.name)
			}
		}
	}
	return nil
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func denied(format, capability string, args ...any) error {
	return fault.New(fault.Denied, format, args...).
		WithHint("the capability %s decides; it is given on the host: aegis instance start --capabilities FILE", capability)
}
