package capability

import (
	"slices"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Any in a list of a Capabilities stands for everything.
const Any = "*"

// The limits of what can be written in a Capabilities.
const (
	MaxDepth    = 16
	MaxChildren = 1000
	maxList     = 1000
)

// Check says what is wrong with rights that a user gives to an instance.
func Check(c api.Capabilities) error {
	for _, n := range []struct {
		name    string
		n, most int64
	}{
		{"spawn_depth", int64(c.SpawnDepth), MaxDepth},
		{"max_children", int64(c.MaxChildren), MaxChildren},
		{"max_memory_mb", c.MaxMemoryMB, 1 << 30},
		{"max_vcpus", int64(c.MaxVCPUs), 1 << 10},
		{"max_expose_ports", int64(c.MaxExposePorts), 1 << 16},
	} {
		if n.n < 0 || n.n > n.most {
			return fault.New(fault.Invalid, "the capability %s cannot be %d", n.name, n.n).WithHint("it is 0 to %d", n.most)
		}
	}
	for _, l := range lists(&c) {
		if len(*l.list) > maxList || slices.Contains(*l.list, "") {
			return fault.New(fault.Invalid, "the capability %s has an empty entry, or too many", l.name).
				WithHint("name what is allowed, or %q for everything", Any)
		}
	}
	return nil
}

// named is a list of a Capabilities with its name on the wire.
type named struct {
	name string
	list *[]string
}

func lists(c *api.Capabilities) []named {
	return []named{
		{"allowed_images", &c.AllowedImages},
		{"allowed_workspaces", &c.AllowedWorkspaces},
		{"allowed_secrets", &c.AllowedSecrets},
		{"llm", &c.LLM},
	}
}

// Has reports whether a list allows an item.
func Has(list []string, item string) bool {
	return slices.Contains(list, Any) || item != Any && slices.Contains(list, item)
}

// CanSpawn reports whether rights allow any child at all.
func CanSpawn(c api.Capabilities) bool { return c.Spawn && c.SpawnDepth > 0 && c.MaxChildren > 0 }

// Inherited returns what a child has when nobody asks for less.
func Inherited(parent api.Capabilities) api.Capabilities {
	c := cloned(parent)
	c.SpawnDepth = max(0, c.SpawnDepth-1)
	if !CanSpawn(c) { // what is only for children of its own says nothing
		return api.Capabilities{MaxExposePorts: c.MaxExposePorts, LLM: c.LLM}
	}
	return c
}

// cloned returns c with lists of its own.
func cloned(c api.Capabilities) api.Capabilities {
	for _, l := range lists(&c) {
		*l.list = slices.Clone(*l.list)
	}
	return c
}

// bound is the largest child: a limit that is not set is the holder's own size.
func bound[T size.Bytes | int](limit, own T) T {
	if limit > 0 {
		return limit
	}
	return own
}
