package cloudhypervisor

import (
	"fmt"
	"net"
	"strings"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// recipe is all that a configuration depends on. Files are numbers of descriptors
// that the process inherits.
type recipe struct {
	Arch     string // as in runtime.GOARCH
	Memory   size.Bytes
	VCPUs    int
	Cmdline  string
	HostCPU  string // names the model
	Network  bool
	Disks    []diskFile
	Clone    bool // map the memory copy-on-write
	Landlock bool

	Kernel, Initrd, RAM, Own int // Kernel and Initrd are 0 for none; Own is the VMM's folder
	API, Events              int
}

// diskFile is a disk with the descriptor of its file.
type diskFile struct {
	Name     string
	ReadOnly bool
	Format   vmm.DiskFormat
	Size     size.Bytes // of what the guest sees
	Layered  bool       // it lies on others
	FD       int
	Under    []int // descriptors of the layers under it
}

const (
	zoneName  = "ram"
	vsockName = "vsock" // the device's, and of its socket in the VMM's folder
	guestCID  = 3       // each VM has a world of its own
	// entropy is where the VMM's random numbers for guests come from.
	entropy = "/dev/urandom"
)

// file names a descriptor as the VMM opens it.
func file(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// argv returns the arguments of the program, without the program itself.
func (r *recipe) argv() []string {
	return []string{
		"--api-socket", fmt.Sprintf("fd=%d", r.API),
		"--event-monitor", fmt.Sprintf("fd=%d", r.Events),
		"--seccomp", "true",
	}
}

// config returns the configuration of the machine. The devices, their names and their
// order are its shape: a saved machine starts only on its own.
func (r *recipe) config() *vmConfig {
	c := &vmConfig{
		CPUs: cpusConfig{Boot: r.vcpus(), Max: r.vcpus()},
		Memory: memoryConfig{Zones: []memoryZone{
			{ID: zoneName, Size: r.bytes(), File: file(r.RAM), Shared: !r.Clone},
		}},
		Payload: payloadConfig{Kernel: file(r.Kernel), Cmdline: r.kernelCommandLine()},
		RNG:     rngConfig{Source: entropy},
		Serial:  serialConfig{Mode: "Tty"},
		Console: serialConfig{Mode: "Off"},
		Vsock:   vsockConfig{ID: vsockName, CID: guestCID, Socket: file(r.Own) + "/" + vsockName},
	}
	if r.Initrd > 0 {
		c.Payload.Initramfs = file(r.Initrd)
	}
	for i := range r.Disks {
		c.Disks = append(c.Disks, r.Disks[i].config())
	}
	if r.Landlock {
		c.Landlock, c.LandlockRules = true, r.rules()
	}
	return c
}

// rules are what the process may open once the machine exists, beside what it is
// configured with.
func (r *recipe) rules() []landlockRule {
	rules := []landlockRule{{Path: file(r.Own), Access: "rw"}}
	for _, d := range r.Disks {
		for _, fd := range d.Under {
			rules = append(rules, landlockRule{Path: file(fd), Access: "r"})
		}
	}
	return rules
}

func (d *diskFile) config() diskConfig {
	kind := "Raw"
	if d.Format == vmm.QCOW2 {
		kind = "Qcow2"
	}
	return diskConfig{
		ID: d.Name, Path: file(d.FD), ReadOnly: d.ReadOnly, Serial: d.Name, ImageType: kind, BackingFiles: d.Layered,
	}
}

func (r *recipe) vcpus() int { return max(1, r.VCPUs) }

// bytes rounds the memory up to what KVM maps well.
func (r *recipe) bytes() int64 {
	const step = 2 * size.MiB
	return int64((r.Memory + step - 1) / step * step)
}

// kernelCommandLine returns the driver's arguments and then the caller's.
//
// reboot=t (triple fault) and panic=-1 end a panicking machine at once: the VMM tells
// that it starts it again, and is ended for it. One UART must stay or there is no
// /dev/console.
func (r *recipe) kernelCommandLine() string {
	args := []string{"console=ttyS0", "8250.nr_uarts=1", "reboot=t", "no_timer_check"}
	if r.Arch == "arm64" {
		args = []string{"console=ttyAMA0"}
	}
	args = append(args, "panic=-1", "quiet", "cryptomgr.notests", "init_on_alloc=0", "audit=0", "random.trust_cpu=on", guestproto.VsockArg)
	if r.Network {
		args = append(args, guestproto.CardArg+"="+net.HardwareAddr(vmm.CardAddress[:]).String())
	}
	if r.Cmdline != "" {
		args = append(args, r.Cmdline)
	}
	return strings.Join(args, " ")
}

// shape names what must be equal of two machines, next to the version of the VMM, for
// a state saved under one to load under the other: not paths, formats and
// descriptors.
func (r *recipe) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; x%d; %d MB; vsock", r.platform(), r.vcpus(), size.Bytes(r.bytes()).MiB())
	if r.Network {
		b.WriteString(" card")
	}
	for _, d := range r.Disks {
		kind := "disk"
		if d.ReadOnly {
			kind = "base"
		}
		fmt.Fprintf(&b, " %s:%s", kind, d.Name)
	}
	return b.String()
}

// platform is the part of a shape that all machines of a driver have in common.
func (r *recipe) platform() string { return "kvm; cpu host " + r.HostCPU }

// model is what has to be known of a machine to save it.
type model struct {
	Shape string                // recipe.shape
	RAM   int                   // descriptor of the memory in the process
	Bytes size.Bytes            // of the memory
	Owner bool                  // of the memory: it is mapped shared, not copy-on-write
	Disks map[string]size.Bytes // sizes of the writable ones
	Card  bool                  // the guest was told to make a network card
	Own   int                   // descriptor of the VMM's folder
	// Layered says that there are overlays to write to, of whose tables the VMM keeps a
	// part in its memory.
	Layered bool
}

// own names something in the VMM's folder as the VMM opens it.
func (m *model) own(name string) string { return file(m.Own) + "/" + name }

// model returns what is recorded of the machine.
func (r *recipe) model() model {
	m := model{Shape: r.shape(), RAM: r.RAM, Bytes: size.Bytes(r.bytes()), Owner: !r.Clone, Disks: map[string]size.Bytes{}, Card: r.Network, Own: r.Own}
	for _, d := range r.Disks {
		if !d.ReadOnly {
			m.Disks[d.Name] = d.Size
			m.Layered = m.Layered || d.Format == vmm.QCOW2
		}
	}
	return m
}

// identity names a shape under a version of the VMM. Upstream promises nothing of
// snapshots between versions.
func identity(v Version, shape string) string {
	return fmt.Sprintf("cloud-hypervisor %v; %s", v, shape)
}
