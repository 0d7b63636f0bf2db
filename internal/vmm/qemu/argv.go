package qemu

import (
	"fmt"
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
	TSCKHz  int // frequency of the host's time stamp counter, or 0 if that is of no use
	Disks   []diskFile

	Kernel, Initrd, RAM, Console int
	QMP, Ctl, Net                int // listening sockets; Net is 0 for none
}

// diskFile is a disk with its opened file.
type diskFile struct {
	Name     string
	Format   vmm.DiskFormat
	ReadOnly bool
	FD       int
}

// mac is the same in every VM: each has a network of its own, and a clone has
// nothing to change.
const mac = "02:61:65:67:69:73"

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
		"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=/proc/self/fd/%d,share=on", r.mebibytes(), r.RAM),
		"-global", "virtio-mmio.force-legacy=false",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-kernel", fmt.Sprintf("/proc/self/fd/%d", r.Kernel),
	}
	if r.Initrd > 0 {
		a = append(a, "-initrd", fmt.Sprintf("/proc/self/fd/%d", r.Initrd))
	}
	a = append(a,
		"-append", r.kernelCommandLine(),
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", r.Console, consoleSet),
		"-chardev", fmt.Sprintf("file,id=console,path=/dev/fdset/%d,append=on", consoleSet),
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d,server=on,wait=off", r.QMP),
		"-mon", "chardev=qmp,mode=control",
		"-device", "virtio-serial-device,max_ports=4",
		"-chardev", fmt.Sprintf("socket,id=ctl,fd=%d,server=on,wait=off", r.Ctl),
		"-device", "virtserialport,chardev=ctl,name="+guestproto.PortName+",nr=1",
	)
	if r.Net > 0 {
		a = append(a,
			"-netdev", fmt.Sprintf("stream,id=net,server=on,addr.type=fd,addr.str=%d", r.Net),
			"-device", "virtio-net-device,netdev=net,mac="+mac)
	}
	for i := range r.Disks {
		a = append(a, r.Disks[i].argv(consoleSet+1+i)...)
	}
	return a
}

// argv returns the arguments of one disk. Everything addresses it by its node
// name, so that the file under it can be replaced by an overlay.
//
// Errors of the host's disk are reported to the guest: QEMU's own default stops
// the machine when the disk is full, which nobody would notice.
func (d *diskFile) argv(set int) []string {
	readOnly, locking := "off", "on"
	if d.ReadOnly {
		readOnly, locking = "on", "off"
	}
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", d.FD, set),
		"-blockdev", fmt.Sprintf("driver=file,node-name=%s-file,filename=/dev/fdset/%d,read-only=%s,locking=%s,discard=unmap",
			d.Name, set, readOnly, locking),
		"-blockdev", fmt.Sprintf("driver=%s,node-name=%s,file=%s-file,read-only=%s,discard=unmap", d.Format, d.Name, d.Name, readOnly),
		"-device", fmt.Sprintf("virtio-blk-device,drive=%s,serial=%s,werror=report,rerror=report", d.Name, d.Name),
	}
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
	if r.TSCKHz > 0 && r.Accel == TCG && r.Arch == "amd64" {
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

// identity names what must be equal for a machine saved under one process to
// start under another: upstream version, machine, CPU model and device shape, but
// not paths and descriptors.
func (r *recipe) identity(v Version) string {
	var b strings.Builder
	fmt.Fprintf(&b, "qemu %d.%d; %s; %s; cpu %s x%d; %d MB; port", v.Major, v.Minor, strings.SplitN(r.machine(), ",", 2)[0],
		r.Accel, r.cpu(), r.vcpus(), r.mebibytes())
	if r.Net > 0 {
		b.WriteString(" net")
	}
	for _, d := range r.Disks {
		fmt.Fprintf(&b, " disk:%s", d.Name)
	}
	return b.String()
}

// escape makes s a value in QEMU's comma-separated options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
