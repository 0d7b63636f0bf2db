package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// module is the path all arrows are drawn within.
const module = "github.com/xfeldman/aegisvm/"

// leaves may be imported by everything; they import only each other.
var leaves = []string{
	"api", "internal/buildinfo", "internal/fault", "internal/frame", "internal/logattr", "internal/message", "internal/cron", "internal/strictjson",
	"internal/hostclock", "internal/paths", "internal/presence", "internal/secret", "internal/capability", "internal/size", "internal/atomicfile", "internal/sparse", "internal/tree",
}

// contracts are what core and adapters agree on; they import leaves.
var contracts = []string{"internal/guestproto", "internal/instance", "internal/vmm"}

// arrows says what else a package may import, next to leaves. A package that is
// not here may not exist: whoever adds one decides where it stands.
var arrows = map[string][]string{
	// Contracts, then the core.
	"internal/guestproto": {},
	"internal/vmm":        {},
	"internal/instance":   {"internal/guestproto", "internal/vmm"},

	// Adapters: each implements what the core declares, and knows no other.
	"internal/apt":         {},
	"internal/guestlink":   contracts,
	"internal/image":       append([]string{"internal/rootfs"}, contracts...),
	"internal/kernel":      {"internal/guestproto", "internal/apt"},
	"internal/kit":         {},
	"internal/logstore":    contracts,
	"internal/machine":     append([]string{"internal/kernel", "internal/rootfs"}, contracts...),
	"internal/netstack":    contracts,
	"internal/nfs":         {},
	"internal/rootfs":      {},
	"internal/schedule":    {"internal/instance"}, // declares what the store keeps of it
	"internal/sidecar":     {},
	"internal/store":       append([]string{"internal/schedule"}, contracts...),
	"internal/tether":      contracts,
	"internal/vault":       contracts,
	"internal/workspace":   append([]string{"internal/nfs"}, contracts...),
	"internal/vmm/qemu":    {"internal/vmm", "internal/guestproto"},
	"internal/vmm/libkrun": {"internal/vmm", "internal/guestproto"},
	"internal/vmm/fake":    {"internal/vmm"},
	"internal/vmm/vmmtest": {"internal/vmm", "internal/guestproto", "internal/guest"},

	"internal/vmm/cloudhypervisor": {"internal/vmm", "internal/guestproto"},

	// The guest: PID 1 and what it is made of. It knows no host code.
	"internal/guest": {"internal/guestproto"},

	// The agent in a VM: a program of its own that knows the host by its API only.
	"internal/agent": {},

	// Edges.
	"client":            {},
	"internal/config":   {},
	"internal/guestapi": append([]string{"internal/logline"}, contracts...),
	"internal/httpapi":  append([]string{"internal/config", "internal/logline", "internal/schedule"}, contracts...),
	"internal/logline":  append([]string{"internal/config"}, contracts...),
	"internal/mcpguest": {},
	"internal/metrics":  {"internal/instance"},
	"internal/router":   {"internal/instance"},
	"internal/setup":    {"internal/apt", "internal/kernel", "internal/rootfs"},
	"internal/doctor":   {"internal/kernel", "internal/rootfs", "internal/setup"},
	"internal/cli":      {"client", "internal/config", "internal/doctor", "internal/kit", "internal/launch", "internal/setup"},

	// What programs on the host share, and the one that models use.
	"internal/launch":    {"client"},
	"internal/mcpserver": {"client", "internal/launch"},

	// Programs of the Agent Kit. They know the daemon by its API only.
	"internal/gateway": {"client"},

	// Wiring that the daemon shares with `aegis doctor`.
	"internal/drivers": {
		"internal/config", "internal/doctor", "internal/kernel", "internal/vmm", "internal/vmm/cloudhypervisor", "internal/vmm/libkrun", "internal/vmm/qemu",
	},

	// Wiring for `aegis bench`, which measures what the daemon wires, and floors without it.
	"internal/bench": append([]string{
		"client", "internal/config", "internal/drivers", "internal/guestlink", "internal/kernel", "internal/machine", "internal/netstack",
		"internal/setup", "internal/vmm/qemu",
	}, contracts...),

	// What is installed: the manual pages are printed from the commands.
	"packaging": {"internal/cli"},

	"internal/archtest": {},
}

// free may import anything: it wires the rest together.
var free = []string{"cmd/", "internal/daemon", "test/"}

// never are dependencies that must not be reached, even indirectly.
var never = []struct{ pkg, dep, why string }{
	{"cmd/aegis-harness", "net/http", "PID 1 stays small"},
	{"cmd/aegis-harness", module + "internal/instance", "the guest knows no host code"},
	{"internal/cli", module + "internal/instance", "the CLI speaks to the daemon"},
	{"internal/cli", module + "internal/vmm/qemu", "the CLI speaks to the daemon"},
	{"internal/mcpserver", module + "internal/instance", "the MCP server speaks to the daemon"},
	{"internal/instance", "net/http", "the core knows no edge"},
	{"internal/instance", "os/exec", "the core decides; adapters do"},
	{"cmd/aegis-gateway", module + "internal/instance", "the gateway speaks to the daemon"},
	{"client", module + "internal/instance", "the client is public"},
	{"cmd/aegis-agent", module + "internal/instance", "the agent knows no host code"},
	{"cmd/aegis-agent", module + "client", "the agent speaks the Guest API"},
}

// Package is what `go list -json` tells of one package.
type Package struct {
	ImportPath string
	Doc        string
	Imports    []string
	Deps       []string
}

// violations returns one line for every arrow that is not allowed.
func violations(pkgs []Package) []string {
	var out []string
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			if to, ours := strings.CutPrefix(imp, module); ours && !allowed(name, to) {
				out = append(out, fmt.Sprintf("%s must not import %s", name, to))
			}
		}
		for _, n := range never {
			if n.pkg == name && slices.Contains(p.Deps, n.dep) {
				out = append(out, fmt.Sprintf("%s must not depend on %s: %s", name, n.dep, n.why))
			}
		}
		if _, known := arrows[family(name)]; !known && !isFree(name) && !slices.Contains(leaves, name) {
			out = append(out, name+" has no place in the picture: add it to arrows")
		}
	}
	return out
}

// allowed reports whether from may import to. Packages of one family (internal/guest
// and the folders below it) may import each other.
func allowed(from, to string) bool {
	switch {
	case slices.Contains(leaves, to), isFree(from):
		return true
	case slices.Contains(leaves, from):
		return false
	}
	return family(from) == family(to) || slices.Contains(arrows[family(from)], family(to))
}

func isFree(name string) bool {
	return slices.ContainsFunc(free, func(f string) bool { return strings.HasPrefix(name, f) })
}

// family returns the entry of arrows that a package falls under: its own, or that
// of the nearest folder above it.
func family(name string) string {
	for n := name; n != ""; {
		if _, ok := arrows[n]; ok {
			return n
		}
		i := strings.LastIndexByte(n, '/')
		if i < 0 {
			break
		}
		n = n[:i]
	}
	return name
}
