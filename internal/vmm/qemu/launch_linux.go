package qemu

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// launch is a VMM about to be started: what it inherits, and what stays here.
type launch struct {
	recipe  recipe
	account *account
	cgroups *cgroups
	copies  *copies
	files   []*os.File // by descriptor number in the VMM
	console *os.File   // our ends of its pipes
	words   *os.File
}

func (l *launch) inherit(f *os.File) int {
	l.files = append(l.files, f)
	return len(l.files) - 1
}

// recipe returns the recipe of spec without what is opened for it.
func (d *Driver) recipe(spec *vmm.Spec) recipe {
	r := recipe{
		Arch: d.arch, Accel: d.accel, ID: spec.ID, Memory: spec.Memory, VCPUs: spec.VCPUs,
		Cmdline: spec.Cmdline, TSCKHz: d.tsc, Network: spec.Network,
	}
	if d.accel == KVM {
		r.HostCPU = hostCPU()
	}
	for _, disk := range spec.Disks {
		r.Disks = append(r.Disks, diskFile{Name: disk.Name, ReadOnly: disk.ReadOnly})
	}
	return r
}

// origin is what a VMM starts from. The zero value is a boot with fresh memory.
type origin struct {
	memory  *os.File // the guest's memory, the launch's to close; nil for fresh
	filled  bool     // memory exists already: the machine takes no more of the host's
	clone   bool     // memory is mapped copy-on-write
	restore bool     // the VMM waits for a saved machine
}

// prepare opens everything that the machine of spec is made of. It closes what
// from has, sooner or later.
func (d *Driver) prepare(f *folder, spec *vmm.Spec, from origin) (*launch, error) {
	l := &launch{account: d.account, cgroups: d.cgroups, copies: d.copies, recipe: d.recipe(spec)}
	l.recipe.Restore, l.recipe.Clone = from.restore, from.clone
	if err := checkSpec(spec, from); err != nil {
		closeAll(from.memory)
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return l.openPipes(f) },
		func() error { return l.openMemory(from.memory) },
		func() error { return l.openKernel(spec) },
		func() error { return l.openSockets(f, spec.Network) },
		func() error { return l.openDisks(spec.Disks) },
	} {
		if err := step(); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// Disk names become node names and serial numbers, which hold 20 characters.
var diskName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,14}$`)

func checkSpec(s *vmm.Spec, from origin) error {
	seen := map[string]bool{}
	for _, d := range s.Disks {
		if !diskName.MatchString(d.Name) || seen[d.Name] {
			return fault.New(fault.Invalid, "bad or repeated disk name %q", d.Name)
		}
		if err := checkLayers(&d); err != nil {
			return err
		}
		seen[d.Name] = true
	}
	if s.Memory < size.MiB {
		return fault.New(fault.Invalid, "a machine with %v of memory", s.Memory)
	}
	if from.filled {
		return nil
	}
	avail, err := availableMemory()
	if err == nil && s.Memory > avail {
		return errMemory(s.Memory, avail)
	}
	return nil
}

// maxLayers bounds the files of one disk, and with it the VMM's descriptors.
const maxLayers = 32

func checkLayers(d *vmm.Disk) error {
	layers := append([]vmm.Layer{{Path: d.Path, Format: d.Format}}, d.Backing...)
	if len(layers) > maxLayers {
		return fault.New(fault.Invalid, "disk %s has %d layers, more than %d", d.Name, len(layers), maxLayers)
	}
	for i, l := range layers {
		if l.Format != vmm.Raw && l.Format != vmm.QCOW2 {
			return fault.New(fault.Invalid, "disk %s has the unknown format %q", d.Name, l.Format)
		}
		if l.Format == vmm.Raw && i < len(layers)-1 {
			return fault.New(fault.Invalid, "disk %s has a layer under a raw one", d.Name)
		}
	}
	return nil
}

// openPipes makes descriptors 0 to 2 and the console.
func (l *launch) openPipes(f *folder) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	l.inherit(null)
	var held, w *os.File
	if l.words, held, w, err = f.makePipe(wordsName); err != nil {
		return err
	}
	l.inherit(w)
	l.files = append(l.files, w)
	l.inherit(held)
	if l.console, held, w, err = f.makePipe(consoleName); err != nil {
		return err
	}
	l.recipe.Console = l.inherit(w)
	l.inherit(held)
	return nil
}

func (l *launch) openKernel(spec *vmm.Spec) error {
	if l.recipe.Restore && l.recipe.Arch != "arm64" {
		return nil
	}
	k, err := l.openReadable(spec.Kernel)
	if err != nil {
		return errKernel(spec.Kernel, err)
	}
	l.recipe.Kernel = l.inherit(k)
	if err := checkKernel(k, l.recipe.Arch); err != nil {
		return errKernel(spec.Kernel, err)
	}
	if spec.Initrd == "" || l.recipe.Restore {
		return nil
	}
	i, err := l.openReadable(spec.Initrd)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "initramfs").By(fault.Host).WithHint("aegis setup")
	}
	l.recipe.Initrd = l.inherit(i)
	return nil
}

// checkKernel finds out before QEMU does, and says it better.
func checkKernel(k io.ReaderAt, arch string) error {
	if arch == "arm64" {
		// Documentation/arm64/booting.rst: the magic at 56 of an Image.
		var magic [4]byte
		if _, err := k.ReadAt(magic[:], 56); err != nil || binary.LittleEndian.Uint32(magic[:]) != 0x644d5241 {
			return errors.New("not an uncompressed arm64 kernel image")
		}
		return nil
	}
	e, err := elf.NewFile(k)
	if err != nil {
		return fmt.Errorf("not an uncompressed kernel (ELF): %w", err)
	}
	if e.Machine != elf.EM_X86_64 {
		return fmt.Errorf("a kernel for %v", e.Machine)
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		// XEN_ELFNOTE_PHYS32_ENTRY, the entry point of a PVH boot.
		note, err := io.ReadAll(io.LimitReader(p.Open(), 1<<16))
		if err == nil && bytes.Contains(note, []byte("\x12\x00\x00\x00Xen\x00")) {
			return nil
		}
	}
	return errors.New("a kernel without a PVH entry point")
}

// openReadable opens a file that QEMU opens again through its descriptor, or a
// copy of it where the account has no right to read it.
func (l *launch) openReadable(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && l.account.mayRead(fi) {
		return f, nil
	}
	defer closeAll(f)
	if err != nil {
		return nil, err
	}
	return l.copies.open(f)
}

// openMemory gives the machine its memory: a file without a name.
func (l *launch) openMemory(m *os.File) error {
	var err error
	if m == nil {
		if m, err = memoryFile(memoryName); err != nil {
			return err
		}
		err = m.Truncate(l.recipe.mebibytes() * int64(size.MiB))
	}
	l.recipe.RAM = l.inherit(m)
	return err
}

func (l *launch) openSockets(f *folder, network bool) error {
	wanted := map[string]*int{qmpName: &l.recipe.QMP, ctlName: &l.recipe.Ctl}
	if network {
		wanted[netName] = &l.recipe.Net
	}
	for name, fd := range wanted {
		s, err := f.listen(name)
		if err != nil {
			return err
		}
		*fd = l.inherit(s)
	}
	return nil
}

func (l *launch) openDisks(disks []vmm.Disk) error {
	for i, d := range disks {
		disk := &l.recipe.Disks[i]
		if !d.ReadOnly {
			var err error
			if disk.Size, err = qcow2.DiskSize(d.Path, d.Format); err != nil {
				return errDiskFile(d.Name, err)
			}
		}
		flags := os.O_RDWR
		for _, layer := range append([]vmm.Layer{{Path: d.Path, Format: d.Format}}, d.Backing...) {
			if d.ReadOnly {
				flags = os.O_RDONLY
			}
			f, err := os.OpenFile(layer.Path, flags, 0)
			if err != nil {
				return errDiskFile(d.Name, err)
			}
			disk.Layers = append(disk.Layers, layerFile{Format: layer.Format, FD: l.inherit(f)})
			flags = os.O_RDONLY
		}
	}
	return nil
}

func errDiskFile(name string, err error) error {
	return fault.Wrap(fault.Unavailable, err, "disk %s", name).By(fault.Host).WithHint("aegis doctor")
}

// start runs the VMM. Its files are closed here whatever happens; our ends of the
// pipes are not.
func (l *launch) start(binary string) (*process, error) {
	sys := l.account.attributes(l.recipe.Accel)
	leave := l.cgroups.enter(sys, &l.recipe)
	attr := &os.ProcAttr{Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}, Files: l.files, Sys: sys}
	argv := append([]string{binary}, l.recipe.argv()...)
	child, err := os.StartProcess(binary, argv, attr)
	leave(err == nil)
	if err != nil && sys.UseCgroupFD { // the kernel may not allow it here
		sys.UseCgroupFD = false
		child, err = os.StartProcess(binary, argv, attr)
	}
	closeAll(l.files...)
	l.files = nil
	if err != nil {
		return nil, errFork(binary, err)
	}
	p, err := openProcess(child.Pid, child)
	if err != nil {
		_ = child.Kill() // it is our child and not reaped: it exists
		_, _ = child.Wait()
		return nil, err
	}
	confine(child.Pid, l.recipe.fileSize())
	return p, nil
}

func errFork(binary string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOEXEC):
		return errMissing(binary, err)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fault.Wrap(fault.Exhausted, err, "start QEMU").By(fault.Host).
			WithHint("the host is out of processes or memory; stop something: aegis instance list")
	case errors.Is(err, os.ErrPermission):
		return fault.Wrap(fault.Denied, err, "start QEMU").By(fault.Host).WithHint("aegis doctor")
	}
	return fault.Wrap(fault.Unavailable, err, "start QEMU").By(fault.Host).WithHint("aegis doctor")
}

func (l *launch) close() {
	closeAll(l.files...)
	closeAll(l.console, l.words)
}

// ended returns ctx's cause when it has ended.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
