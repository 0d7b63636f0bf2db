package libkrun

import (
	"errors"
	"os"
	"regexp"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
)

// launch is a worker about to be started: what it inherits, and what stays here.
type launch struct {
	recipe  recipe.Recipe
	files   []*os.File // by descriptor number in the worker
	console *os.File   // our ends of its pipes
	words   *os.File
}

func (l *launch) inherit(f *os.File) int {
	l.files = append(l.files, f)
	return len(l.files) - 1
}

// stdin is the descriptor for the recipe, which comes last.
const stdin = 0

// prepare opens everything that the machine of spec is made of.
func (d *Driver) prepare(f *folder, spec *vmm.Spec) (*launch, error) {
	l := &launch{files: []*os.File{stdin: nil}}
	l.recipe = recipe.Recipe{
		Library: d.path, ID: spec.ID, VCPUs: max(1, spec.VCPUs), Memory: mebibytes(spec.Memory),
		Account: d.account, Cmdline: commandLine(spec),
	}
	if spec.Network {
		l.recipe.MAC = vmm.CardAddress[:]
	}
	for _, step := range []func() error{
		func() error { return l.openPipes(f) },
		func() error { return l.openSockets(f, spec.Network) },
		func() error { return l.openKernel(d, spec) },
		func() error { return l.checkDisks(spec.Disks) },
	} {
		if err := step(); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// mebibytes rounds the memory up.
func mebibytes(b size.Bytes) int64 { return (b + size.MiB - 1).MiB() }

// A disk's name goes onto the kernel's command line.
var diskName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_-]{0,14}$`)

func checkSpec(s *vmm.Spec) error {
	seen := map[string]bool{}
	for _, d := range s.Disks {
		if !diskName.MatchString(d.Name) || seen[d.Name] {
			return fault.New(fault.Invalid, "bad or repeated disk name %q", d.Name)
		}
		seen[d.Name] = true
		switch {
		case d.Format == vmm.QCOW2 || len(d.Backing) > 0:
			return errLayers(d.Name)
		case d.Format != vmm.Raw:
			return fault.New(fault.Invalid, "disk %s has the unknown format %q", d.Name, d.Format)
		}
	}
	if s.Memory < size.MiB {
		return fault.New(fault.Invalid, "a machine with %v of memory", s.Memory)
	}
	avail, err := availableMemory()
	if err == nil && s.Memory > avail {
		return errMemory(s.Memory, avail)
	}
	return nil
}

// openPipes makes stdout, stderr and the console. The worker holds a reading end of
// both pipes, so that its writes never fail.
func (l *launch) openPipes(f *folder) error {
	var held, w *os.File
	var err error
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

func (l *launch) openSockets(f *folder, network bool) error {
	wanted := map[string]*int{lifeName: &l.recipe.Life, ctlName: &l.recipe.Ctl}
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

func (l *launch) openKernel(d *Driver, spec *vmm.Spec) error {
	k, err := os.Open(spec.Kernel)
	if err != nil {
		return errKernel(spec.Kernel, err)
	}
	if l.recipe.Format, err = kernelFormat(k, goarch); err == nil {
		l.recipe.Kernel, err = l.lend(d, k)
	}
	if err != nil {
		closeAll(k)
		return errKernel(spec.Kernel, err)
	}
	if spec.Initrd == "" {
		return nil
	}
	i, err := os.Open(spec.Initrd)
	if err != nil {
		return errInitrd(err)
	}
	if l.recipe.Initrd, err = l.lend(d, i); err != nil {
		closeAll(i)
		return errInitrd(err)
	}
	return nil
}

// checkDisks finds out before libkrun does, and says it better. libkrun opens disks by
// name, before the worker gives up its rights.
func (l *launch) checkDisks(disks []vmm.Disk) error {
	for _, d := range disks {
		flags := os.O_RDWR
		if d.ReadOnly {
			flags = os.O_RDONLY
		}
		f, err := os.OpenFile(d.Path, flags, 0)
		if err != nil {
			return errDiskFile(d.Name, err)
		}
		closeAll(f)
		l.recipe.Disks = append(l.recipe.Disks, recipe.Disk{Name: d.Name, Path: d.Path, ReadOnly: d.ReadOnly})
	}
	return nil
}

// start runs the worker.
func (l *launch) start(binary string) (*process, error) {
	b, err := l.recipe.Encode()
	if err != nil {
		return nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	l.files[stdin] = from
	_, err = to.Write(b) // it fits, see Encode
	closeAll(to)
	if err != nil {
		return nil, err
	}
	child, err := os.StartProcess(binary, []string{binary, recipe.Run}, &os.ProcAttr{
		Dir: "/", Env: environment(), Files: l.files, Sys: attributes(l.recipe.Account),
	})
	if err != nil {
		return nil, errFork(err)
	}
	return newProcess(child, true), nil
}

func errFork(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOEXEC):
		return errWorker(err)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		return fault.Wrap(fault.Exhausted, err, "start a worker").By(fault.Host).
			WithHint("the host is out of processes or memory; stop something: aegis instance list")
	case errors.Is(err, os.ErrPermission):
		return fault.Wrap(fault.Denied, err, "start a worker").By(fault.Host).WithHint("aegis doctor")
	}
	return fault.Wrap(fault.Unavailable, err, "start a worker").By(fault.Host).WithHint("aegis doctor")
}

// close closes what a machine has not taken.
func (l *launch) close() {
	closeAll(l.files...)
	closeAll(l.console, l.words)
}
