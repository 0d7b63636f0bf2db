package vmm

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/size"
)

// Start and LoadMemory wrap one of these when a saved machine is of no use. Nothing
// of it was deleted, and nothing runs: the caller can boot instead.
var (
	// ErrStale: it was made by another driver, VMM, CPU or shape of machine, or the VMM
	// refuses it.
	ErrStale = errors.New("the saved machine does not fit")
	// ErrDamaged: its files are missing, shortened or changed.
	ErrDamaged = errors.New("the saved machine is damaged")
)

// Saved describes a saved machine. It is plain data, to be kept by whoever keeps
// the files. The disks belong to it too; the caller captured them at the same
// pause.
type Saved struct {
	Driver   string `json:"driver"`   // Info.Name of the driver that wrote it
	Identity string `json:"identity"` // VMM, machine type, CPU model and device shape: must fit to start from it
	State    File   `json:"state"`    // the devices' state
	Whole    bool   `json:"whole"`    // State holds the memory too
	Memory   File   `json:"memory"`   // what Memory.Store wrote; the zero File if Whole, or if it was not stored
	// Disks are the sizes of the writable disks that the guest knows, by name. The driver
	// need not tell it of what is as it was; a disk that is not here is told of.
	Disks map[string]size.Bytes `json:"disks,omitempty"`
}

// File is a file of a saved machine.
type File struct {
	Path   string     `json:"path"`
	Size   size.Bytes `json:"size"`   // what it takes on the disk, about
	Digest string     `json:"digest"` // what the driver checks it against, in its own form
}

// In returns s with its files in dir, under their own names: where the caller has
// moved them.
func (s Saved) In(dir string) Saved {
	for _, f := range []*File{&s.State, &s.Memory} {
		if f.Path != "" {
			f.Path = filepath.Join(dir, filepath.Base(f.Path))
		}
	}
	return s
}

// Sync makes the files and their names survive a crash of the host.
func (s Saved) Sync() error {
	done := map[string]bool{}
	for _, f := range []File{s.State, s.Memory} {
		for _, path := range []string{f.Path, filepath.Dir(f.Path)} {
			if f.Path == "" || done[path] {
				continue
			}
			done[path] = true
			if err := syncPath(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Restore starts a machine from a saved one. The machine is paused, as the one was
// that was saved: what can go wrong with loading it has gone wrong when Start
// returns, and nothing has run.
//
// The Spec gives the same Memory, VCPUs, Network and disk names; the disks' files
// hold what the saved machine's did, in whatever format, and may be larger: the
// guest is told so. Kernel, Initrd and Cmdline are in the memory already and need not be
// given, but for arm64's Kernel.
//
// Three kinds of start, of which the first two need Saved.Whole to be false, and the
// Memory that was saved with this very state:
//
//	Memory, not Own   a copy-on-write clone. Memory stays as it is, sealed against
//	                  all VMMs, and serves any number of clones.
//	Memory, Own       the machine takes Memory for its own, without a copy. It is spent
//	                  once the machine is resumed.
//	no Memory         the machine gets memory of its own, filled from Saved's files.
type Restore struct {
	Saved  Saved
	Memory Memory
	Own    bool
}

func (Restore) source() {}

// Memory is the memory of a machine that was saved, held by this process. It has
// no name and goes with the last who holds it: this process until Close, and the
// VMMs that run on it. Its methods may be called together.
//
// It came from Save, or from LoadMemory. One that came from Save belongs to a
// machine that still exists and is paused. What it holds is what was saved only
// until that machine is resumed: resuming spoils it, and its methods fail from
// then on. Ending the machine instead frees it for Restore.
type Memory interface {
	// Store writes what the memory holds to a new file at path, sparse and with
	// checksums, for Saved.Memory. After an error there is no such file.
	Store(ctx context.Context, path string) (File, error)

	// Close gives the memory back to the host once no VMM runs on it.
	Close() error
}

// MemoryCopier is a Memory that can be copied at the pause of the machine that holds it, which
// then goes on with it. Where that is little it takes less time than to start the machine
// anew, and the machine keeps its memory for its own.
type MemoryCopier interface {
	// Copy returns a Memory of the same save that no machine holds, or nil if more than limit
	// would have to be copied. What no machine holds already is not copied, but sealed: both
	// serve clones from then on, and neither can be a machine's own.
	Copy(ctx context.Context, limit size.Bytes) (Memory, error)
}

// MemoryLoader is a Driver that starts machines from saved ones.
type MemoryLoader interface {
	// LoadMemory reads Saved.Memory into this process, checked, to start clones from.
	// The files are not needed for their memory any more.
	LoadMemory(ctx context.Context, s Saved) (Memory, error)
}

// Saver is a Machine that can be saved. It must be paused, and must have run since
// it was saved before, if it was.
//
// A machine that was booted, or restored with memory of its own, *owns* its
// memory; a copy-on-write clone does not. Of an owner Save writes the devices'
// state alone, some hundred kilobytes within some milliseconds, and returns its
// Memory. Of a clone it copies all memory, and returns it as a Memory that no machine holds: neither the
// clone's going on nor its end changes it. Where that cannot be done (there is no room, or the
// driver cannot) it writes the memory into the state too, and returns none.
type Saver interface {
	// Save writes the machine's state to a new file in dest.Dir. The machine stays
	// paused: resume it, or end it. After an error there is no such file, and the
	// machine is paused as it was, or has ended; it may have to be resumed before it
	// is saved again. The Memory, which the caller must Close, is nil exactly if Saved.Whole.
	Save(ctx context.Context, dest Dest) (Saved, Memory, error)
}

// Dest says where and how a machine is saved.
type Dest struct {
	Dir string // folder for the state, which exists
	// Hasty shortens the pause of a machine whose state holds its memory: the state is
	// not compressed, and takes as much of the disk as the memory it holds.
	Hasty bool
}

// DiskForker is a Machine whose disks can be forked at a pause.
type DiskForker interface {
	// ForkDisk freezes the file behind the writable disk name: from now on it is
	// shared and read-only, and the machine goes on with an overlay, a new qcow2 file
	// at path overlay whose backing it is. No data is copied. The machine must be
	// paused; it is forked before it is saved, not after. After an error the disk is as it was and
	// there is no overlay.
	ForkDisk(ctx context.Context, name, overlay string) error
}
