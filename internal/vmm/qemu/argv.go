package qemu

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// recipe is all that a command line depends on. Files are numbers of descriptors
// that the process inherits.
type recipe struct {
	Arch    string // as in runtime.GOARCH
	Accel   Accel  // KVM or TCG
	ID      string
	Memory  size.Bytes
	VCPUs   int
	Cmdline string
	TSCKHz  int    // frequency of the host's time stamp counter, or 0 if that is of no use
	HostCPU string // names the model, where guests see it: under KVM
	Network bool   // there is a network card
	Disks   []diskFile

	Restore bool // wait for a saved machine instead of starting the kernel
	Clone   bool // map the memory copy-on-write

	Kernel, Initrd, RAM, Console int // Kernel and Initrd are 0 for none
	QMP, Ctl, Net                int // listening sockets; Net only with Network
}

// diskFile is a disk with its opened files.
type diskFile struct {
	Name     string
	ReadOnly bool
	Size     size.Bytes  // of what the guest sees
	Layers   []layerFile // the disk's own file, and what lies under it
}

// layerFile is an opened file of a disk.
type layerFile struct {
	Format vmm.DiskFormat
	FD     int
}

// The first fdset is the console's; the disks' follow.
const consoleSet = 1

// argv returns the arguments of QEMU, without the program itself. The devices and
// their order are the machine's shape: a saved machine starts only on its own.
func (r *recipe) argv() []string {
	a := []string{
		"-name", "guest=" + escape(r.ID),
		"-M", r.machine(),
		"-accel", string(r.Accel),
		"-cpu", r.cpu(),
		"-smp", strconv.Itoa(r.vcpus()),
		"-m", fmt.Sprintf("%dM", r.mebibytes()),
		"-object", r.memory(),
		"-global", "virtio-mmio.force-legacy=false",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	a = append(a, r.start()...)
	a = append(a,
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", r.Console, consoleSet),
		"-chardev", fmt.Sprintf("file,id=console,path=/dev/fdset/%d,append=on", consoleSet),
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", r.QMP),
		"-mon", "chardev=qmp,mode=control",
		"-device", "virtio-serial-device,max_ports=4",
		"-chardev", fmt.Sprintf("socket,id=ctl,fd=%d,server=on,wait=off", r.Ctl),
		"-device", "virtserialport,chardev=ctl,name="+guestproto.PortName+",nr=1",
	)
	if r.Network {
		a = append(a,
			"-netdev", fmt.Sprintf("stream,id=net,server=on,addr.type=fd,addr.str=%d", r.Net),
			"-device", "virtio-net-device,netdev=net,mac="+net.HardwareAddr(vmm.CardAddress[:]).String())
	}
	set := consoleSet
	for i := range r.Disks {
		a = append(a, r.Disks[i].argv(set)...)
		set += len(r.Disks[i].Layers)
	}
	return a
}

// start returns the arguments that say what the machine starts from. A saved one
// has its kernel in memory; arm64's boot code decides more about the machine than
// what it loads.
func (r *recipe) start() []string {
	var a []string
	if r.Restore {
		a = append(a, "-incoming", "defer", "-S")
	}
	if r.Kernel > 0 {
		a = append(a, "-kernel", fmt.Sprintf("/proc/self/fd/%d", r.Kernel), "-append", r.kernelCommandLine())
	}
	if r.Initrd > 0 {
		a = append(a, "-initrd", fmt.Sprintf("/proc/self/fd/%d", r.Initrd))
	}
	return a
}

// memory returns the guest's memory: a file that is mapped shared, so that a save
// need not copy it, or copy-on-write by a clone.
//
// There is no balloon and no reporting of free pages: from a clone both would punch
// holes into the file that its siblings run on.
func (r *recipe) memory() string {
	share := "on"
	if r.Clone {
		share = "off"
	}
	return fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=/proc/self/fd/%d,share=%s", r.mebibytes(), r.RAM, share)
}

// argv returns the arguments of one disk, whose files go into fdsets after the
// given one. Everything addresses it by its node name, so that the file under it
// can be replaced by an overlay.
//
// Errors of the host's disk are reported to the guest: QEMU's own default stops
// the machine when the disk is full, which nobody would notice.
func (d *diskFile) argv(set int) []string {
	var a []string
	for i, l := range slices.Backward(d.Layers) { // a node must exist before one that lies on it
		n := node{name: d.layerNode(i), set: set + 1 + i, format: l.Format, readOnly: d.ReadOnly || i > 0}
		if i < len(d.Layers)-1 {
			n.backing = d.layerNode(i + 1)
		}
		a = append(a, "-add-fd", fmt.Sprintf("fd=%d,set=%d", l.FD, n.set),
			"-blockdev", n.file().json(), "-blockdev", n.image().json())
	}
	return append(a, "-device", fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s,werror=report,rerror=report", d.Name, d.Name))
}

// layerNode names the node of a layer; the disk's own has its name.
func (d *diskFile) layerNode(i int) string {
	if i == 0 {
		return d.Name
	}
	return fmt.Sprintf("%s.b%d", d.Name, i)
}

func (r *recipe) machine() string {
	if r.Arch == "arm64" {
		return "virt,gic-version=max,memory-backend=ram"
	}
	return "microvm,x-option-roms=off,rtc=on,memory-backend=ram"
}

func (r *recipe) cpu() string {
	if r.Accel == KVM {
		return "host"
	}
	return "max"
}

func (r *recipe) vcpus() int { return max(1, r.VCPUs) }

// mebibytes rounds the memory up: the machine and its backend must agree to the
// byte.
func (r *recipe) mebibytes() int64 { return (r.Memory + size.MiB - 1).MiB() }

// fileSize bounds what the process writes to a file: its largest disk with all of the
// format's own data, and its memory.
func (r *recipe) fileSize() size.Bytes {
	most := r.Memory
	for _, d := range r.Disks {
		most = max(most, d.Size)
	}
	return 2*most + size.GiB
}

// kernelCommandLine returns the driver's arguments and then the caller's.
//
// reboot=t (triple fault) and panic=-1 end a panicking machine at once, as QEMU
// runs with -no-reboot. The others save time when instructions are emulated;
// cryptomgr.notests alone is worth 250 ms. One UART must stay or there is no
// /dev/console.
func (r *recipe) kernelCommandLine() string {
	args := []string{"console=ttyS0", "8250.nr_uarts=1", "reboot=t", "no_timer_check"}
	if r.Arch == "arm64" {
		args = []string{"console=ttyAMA0"}
	}
	args = append(args, "panic=-1", "quiet", "cryptomgr.notests", "init_on_alloc=0", "audit=0", "random.trust_cpu=on")
	if r.ticks() {
		// TCG hands the host's counter through, but the guest would measure its
		// frequency against emulated timers, for long and badly. It would go on to
		// judge the counter by them, find it wrong on a busy host, and keep time by the
		// ticks it gets, of which such a host loses every tenth.
		args = append(args, fmt.Sprintf("tsc_early_khz=%d", r.TSCKHz), "tsc=reliable")
	}
	if r.Cmdline != "" {
		args = append(args, r.Cmdline)
	}
	return strings.Join(args, " ")
}

// shape names what must be equal of two machines, next to the version of QEMU, for
// a state saved under one to load under the other: not paths, formats and
// descriptors.
func (r *recipe) shape() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; x%d; %d MB; port", r.platform(), r.vcpus(), r.mebibytes())
	if r.Network {
		b.WriteString(" net")
	}
	for _, d := range r.Disks {
		kind := "disk"
		if d.ReadOnly {
			kind = "base"
		}
		fmt.Fprintf(&b, " %s:%s", kind, d.Name)
	}
	if r.ticks() {
		fmt.Fprintf(&b, "; tsc %d", r.TSCKHz)
	}
	return b.String()
}

// model is what has to be known of a machine to save it.
type model struct {
	Shape string                // recipe.shape
	RAM   int                   // descriptor of the memory in the process
	Owner bool                  // of the memory: it is mapped shared, not copy-on-write
	Disks map[string]size.Bytes // sizes of the writable ones
}

// model returns what is recorded of the machine.
func (r *recipe) model() model {
	m := model{Shape: r.shape(), RAM: r.RAM, Owner: !r.Clone, Disks: map[string]size.Bytes{}}
	for _, d := range r.Disks {
		if !d.ReadOnly {
			m.Disks[d.Name] = d.Size
		}
	}
	return m
}

// startsBare tells whether the memory of a machine of that shape that is to be loaded has
// nothing in it: virt gets its kernel for every start, and QEMU may put it there first.
func startsBare(shape string) bool { return strings.HasPrefix(shape, "microvm;") }

// platform is the part of a shape that all machines of a driver have in common.
func (r *recipe) platform() string {
	cpu := r.cpu()
	if r.HostCPU != "" {
		cpu += " " + r.HostCPU
	}
	return fmt.Sprintf("%s; %s; cpu %s", strings.SplitN(r.machine(), ",", 2)[0], r.Accel, cpu)
}

// ticks tells whether guests count the host's time stamp counter.
func (r *recipe) ticks() bool { return r.TSCKHz > 0 && r.Accel == TCG && r.Arch == "amd64" }

// identity names a shape under a version of QEMU. Upstream keeps states loadable
// between patches of one version.
func identity(v Version, shape string) string {
	return fmt.Sprintf("qemu %d.%d; %s", v.Major, v.Minor, shape)
}

// shapeIn returns the shape within an identity.
func shapeIn(identity string) string {
	_, shape, _ := strings.Cut(identity, "; ")
	return shape
}

// fits tells whether a machine saved with one identity may start under another:
// they are equal, but for the measured frequency of the counter, where a guest does
// not notice a thousandth.
func fits(a, b string) bool {
	a, ticksA, _ := strings.Cut(a, "; tsc ")
	b, ticksB, _ := strings.Cut(b, "; tsc ")
	x, _ := strconv.Atoi(ticksA) // 0 where there is none
	y, _ := strconv.Atoi(ticksB)
	return a == b && max(x-y, y-x) <= max(x, y)/1000
}

// escape makes s a value in QEMU's comma-separated options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
