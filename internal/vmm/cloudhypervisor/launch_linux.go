package cloudhypervisor

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/host"
	"github.com/xfeldman/aegisvm/internal/vmm/qcow2"
)

// Names in Spec.Dir.
const (
	apiName     = "api"
	ownName     = "ch" // the VMM's folder
	consoleName = "console"
	wordsName   = "vmm"
	eventsName  = "events"
	logSuffix   = ".log"
)

var names = []string{apiName, ownName, consoleName, wordsName, eventsName}

// pipes are our ends of what a VMM says.
type pipes struct{ console, words, events *os.File }

func (p *pipes) named() iter.Seq2[string, **os.File] {
	return func(yield func(string, **os.File) bool) {
		_ = yield(consoleName, &p.console) && yield(wordsName, &p.words) && yield(eventsName, &p.events)
	}
}

func (p *pipes) close() { host.CloseAll(p.console, p.words, p.events) }

// launch is a VMM about to be started: what it inherits, and what stays here.
type launch struct {
	recipe  recipe
	account *host.Account
	room    *room
	files   []*os.File // by descriptor number in the VMM
	pipes   pipes
	named   bool // the memory is in memoryDir
}

func (l *launch) inherit(f *os.File) int {
	l.files = append(l.files, f)
	return len(l.files) - 1
}

// recipe returns the recipe of spec without what is opened for it.
func (d *Driver) recipe(spec *vmm.Spec) recipe {
	r := recipe{
		Arch: runtime.GOARCH, Memory: spec.Memory, VCPUs: spec.VCPUs, Cmdline: spec.Cmdline,
		HostCPU: host.CPU(), Network: spec.Network,
	}
	for _, disk := range spec.Disks {
		r.Disks = append(r.Disks, diskFile{Name: disk.Name, ReadOnly: disk.ReadOnly, Format: disk.Format})
	}
	return r
}

// origin is what a VMM starts from. The zero value is a boot with fresh memory.
type origin struct {
	memory  *os.File // the guest's memory, the launch's to close; nil for fresh
	filled  bool     // memory exists already: the machine takes no more of the host's
	clone   bool     // memory is mapped copy-on-write
	restore bool     // there is no kernel to start
}

// prepare opens everything that the machine of spec is made of. It closes what
// from has, sooner or later.
func (d *Driver) prepare(f *host.Folder, spec *vmm.Spec, from origin) (*launch, error) {
	l := &launch{account: d.account, room: &d.room, recipe: d.recipe(spec)}
	l.recipe.Clone = from.clone
	if err := checkSpec(spec, from); err != nil {
		host.CloseAll(from.memory)
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return l.openPipes(f) },
		func() error { return l.openMemory(from.memory) },
		func() error { return l.openKernel(spec, from.restore) },
		func() error { return l.openSockets(f) },
		func() error { return l.openDisks(spec.Disks) },
	} {
		if err := step(); err != nil {
			l.close()
			return nil, err
		}
	}
	// A memfd is in no file system, and rules are of files in one.
	l.named = inTmpfs(l.files[l.recipe.RAM])
	l.recipe.Landlock = d.landlock && l.named
	return l, nil
}

// Disk names become ids and serial numbers, which hold 20 characters.
var diskName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,14}$`)

func checkSpec(s *vmm.Spec, from origin) error {
	seen := map[string]bool{vsockName: true}
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
	avail, err := host.AvailableMemory()
	if err == nil && s.Memory > avail {
		return errMemory(s.Memory, avail)
	}
	return nil
}

// maxLayers bounds the files of one disk, and with it the VMM's descriptors.
const maxLayers = 32

func checkLayers(d *vmm.Disk) error {
	layers := layersOf(d)
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

// layersOf returns the files of a disk, its own first.
func layersOf(d *vmm.Disk) []vmm.Layer {
	return append([]vmm.Layer{{Path: d.Path, Format: d.Format}}, d.Backing...)
}

// openPipes makes descriptors 0 to 2, of which 1 is the guest's console, and the pipe
// of events.
func (l *launch) openPipes(f *host.Folder) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	l.inherit(null)
	for name, ours := range l.pipes.named() {
		var held, w *os.File
		if *ours, held, w, err = f.MakePipe(name); err != nil {
			return err
		}
		defer func() { l.inherit(held) }() // behind the numbers that matter
		l.recipe.Events = l.inherit(w)     // the last
	}
	return nil
}

func (l *launch) openKernel(spec *vmm.Spec, restore bool) error {
	if restore {
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
	if spec.Initrd == "" {
		return nil
	}
	i, err := l.openReadable(spec.Initrd)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "initramfs").By(fault.Host).WithHint("aegis setup")
	}
	l.recipe.Initrd = l.inherit(i)
	return nil
}

// checkKernel finds out before the VMM does, and says it better.
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
	return nil
}

// openReadable opens a file that the VMM opens again through its descriptor.
func (l *launch) openReadable(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := l.account.LetRead(f); err != nil {
		host.CloseAll(f)
		return nil, err
	}
	return f, nil
}

// openMemory gives the machine its memory: a file without a name.
func (l *launch) openMemory(m *os.File) error {
	var err error
	if m == nil {
		if m, err = l.room.newMemoryFile(size.Bytes(l.recipe.bytes())); err != nil {
			return err
		}
	}
	l.recipe.RAM = l.inherit(m)
	if l.recipe.Clone {
		return nil
	}
	return l.account.Give(m)
}

// openSockets makes what the VMM listens on, and its own folder.
func (l *launch) openSockets(f *host.Folder) error {
	api, err := f.Listen(apiName)
	if err != nil {
		return err
	}
	l.recipe.API = l.inherit(api)
	own := filepath.Join(f.Path, ownName)
	if err := os.Mkdir(own, 0o700); err != nil {
		return err
	}
	dir, err := os.OpenFile(own, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	l.recipe.Own = l.inherit(dir)
	return l.account.Give(dir)
}

// The descriptors of the layers of disks have numbers of their own: those of the first
// disk that is written to begin with firstLayer, and the lowest layer comes first. What
// an overlay says it lies on is /proc/self/fd/N; so it says the same in every machine,
// and layers that many machines share need not be told apart.
const (
	firstLayer = 32
	maxStacks  = 4
)

func (l *launch) openDisks(disks []vmm.Disk) error {
	stacks := make([]*os.File, maxStacks*maxLayers)
	defer func() {
		for len(l.files) < firstLayer {
			l.files = append(l.files, nil)
		}
		l.files = append(l.files, stacks...)
	}()
	stack := 0
	for i := range disks {
		d, to := &disks[i], &l.recipe.Disks[i]
		if d.ReadOnly && len(d.Backing) == 0 {
			f, err := l.openReadable(d.Path)
			if err != nil {
				return errDiskFile(d.Name, err)
			}
			to.FD = l.inherit(f)
			continue
		}
		if stack == maxStacks {
			return fault.New(fault.Invalid, "a machine with more than %d disks to write to", maxStacks)
		}
		if err := l.openStack(d, to, stacks[stack*maxLayers:(stack+1)*maxLayers], firstLayer+stack*maxLayers); err != nil {
			return errDiskFile(d.Name, err)
		}
		stack++
	}
	if len(l.files) > firstLayer {
		return fault.New(fault.Invalid, "a machine with too many disks")
	}
	return nil
}

// openStack opens the layers of a disk into files, whose numbers begin with first, and
// makes each say what it lies on.
func (l *launch) openStack(d *vmm.Disk, to *diskFile, files []*os.File, first int) error {
	var err error
	if to.Size, err = qcow2.DiskSize(d.Path, d.Format); err != nil {
		return err
	}
	layers := layersOf(d)
	for i, layer := range layers {
		height := len(layers) - 1 - i
		if i+1 < len(layers) {
			under := vmm.Layer{Path: file(first + height - 1), Format: layers[i+1].Format}
			if err := qcow2.Point(layer.Path, under); err != nil {
				return err
			}
			to.Under = append(to.Under, first+height-1)
		}
		f, err := l.openLayer(layer.Path, i == 0 && !d.ReadOnly)
		if err != nil {
			return err
		}
		files[height] = f
	}
	to.FD, to.Layered = first+len(layers)-1, len(layers) > 1
	return nil
}

func (l *launch) openLayer(path string, write bool) (*os.File, error) {
	if !write {
		return l.openReadable(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := l.account.Give(f); err != nil {
		host.CloseAll(f)
		return nil, err
	}
	return f, nil
}

// start runs the VMM. Its files are closed here whatever happens; our ends of the
// pipes are not.
func (l *launch) start(binary string) (*host.Process, error) {
	run, program, err := l.program(binary)
	if err != nil {
		return nil, errMissing(binary, err)
	}
	defer host.CloseAll(program)
	child, err := os.StartProcess(run, append([]string{binary}, l.recipe.argv()...), &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/bin:/bin", "LC_ALL=C"},
		Files: l.files,
		Sys:   l.account.Attributes(true),
	})
	host.CloseAll(l.files...)
	l.files = nil
	if err != nil {
		return nil, errFork(binary, err)
	}
	p, err := host.OpenProcess(child.Pid, child)
	if err != nil {
		_ = child.Kill() // it is our child and not reaped: it exists
		_, _ = child.Wait()
		return nil, err
	}
	host.Confine(child.Pid)
	return p, nil
}

// aboveAll is above the numbers of all that a VMM inherits, within the usual limit.
const aboveAll = 512

// program returns the path to start the program by, and what must be open for it. An
// account that cannot enter the folder that it is in gets it by a descriptor.
func (l *launch) program(binary string) (string, *os.File, error) {
	if l.account == nil {
		return binary, nil, nil
	}
	f, err := os.Open(binary)
	if err != nil {
		return "", nil, err
	}
	defer host.CloseAll(f)
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, aboveAll)
	if err != nil {
		return "", nil, os.NewSyscallError("dup", err)
	}
	return file(fd), os.NewFile(uintptr(fd), binary), nil
}

func errFork(binary string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOEXEC):
		return errMissing(binary, err)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fault.Wrap(fault.Exhausted, err, "start %s", displayName).By(fault.Host).
			WithHint("the host is out of processes or memory; stop something: aegis instance list")
	case errors.Is(err, os.ErrPermission):
		return fault.Wrap(fault.Denied, err, "start %s", displayName).By(fault.Host).WithHint("aegis doctor")
	}
	return fault.Wrap(fault.Unavailable, err, "start %s", displayName).By(fault.Host).WithHint("aegis doctor")
}

func (l *launch) close() {
	host.CloseAll(l.files...)
	l.pipes.close()
}
