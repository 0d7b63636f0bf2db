package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

// recordName is the file that says who a folder's machine is.
const recordName = "vmm.json"

// record tells what a folder's machine is, and which process runs it: PID is 0 until
// there is one.
type record struct {
	PID   int
	Start uint64 // in ticks since boot
	Boot  string // id of the host's boot
	Model json.RawMessage
}

// Folder is a machine's Spec.Dir, claimed: the lock on its record is held.
type Folder struct {
	Path string
	Dir  *os.File

	names  []string // what else a machine puts here
	record *os.File
	model  json.RawMessage
}

var errClaimed = errors.New("another process has taken this machine")

// MakeFolder claims a folder for a new machine, which will put files of these names
// into it. What a machine that has ended left there is removed.
func MakeFolder(path string, names ...string) (*Folder, error) {
	for range 3 {
		f, err := openFolder(path, unix.O_CREAT|unix.O_EXCL, names)
		if !errors.Is(err, unix.EEXIST) {
			return f, err
		}
		if f, err = openFolder(path, 0, names); errors.Is(err, unix.ENOENT) {
			continue // whoever had it has just let go
		} else if err != nil {
			return nil, err
		}
		p, err := f.Process(nil)
		if err == nil {
			p.Close()
			f.Close()
			return nil, fault.New(fault.Conflict, "a machine runs in %s", path)
		}
		f.Clear()
		f.Close()
	}
	return nil, fault.New(fault.Conflict, "%s is in use", path)
}

// OpenFolder claims the folder of a machine that exists.
func OpenFolder(path string, names ...string) (*Folder, error) { return openFolder(path, 0, names) }

func openFolder(path string, flags int, names []string) (*Folder, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := &Folder{Path: path, Dir: dir, names: names}
	if f.record, err = OpenAt(dir, recordName, flags|unix.O_RDWR|unix.O_NOFOLLOW, 0o600); err != nil {
		_ = dir.Close() // nothing was written
		return nil, err
	}
	if err := f.lock(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (f *Folder) lock() error {
	if err := unix.Flock(int(f.record.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fault.Wrap(fault.Conflict, errClaimed, "%s", f.Path)
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", f.record.Name(), err)
	}
	// The record may have been removed, and another made, while we opened it.
	var ours, there unix.Stat_t
	if err := unix.Fstat(int(f.record.Fd()), &ours); err != nil {
		return err
	}
	err := unix.Fstatat(int(f.Dir.Fd()), recordName, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (ours.Ino != there.Ino || ours.Dev != there.Dev) {
		err = unix.ENOENT
	}
	return err
}

// Begin records what machine will be here.
func (f *Folder) Begin(model any) error {
	b, err := json.Marshal(model)
	if err != nil {
		return err
	}
	f.model = b
	return f.write(record{Model: b})
}

// Started records the process of the machine.
func (f *Folder) Started(pid int) error {
	start, err := StartTime(pid)
	if err != nil {
		return err
	}
	boot, err := BootID()
	if err != nil {
		return err
	}
	return f.write(record{PID: pid, Start: start, Boot: boot, Model: f.model})
}

// write replaces the record. It never gets shorter.
func (f *Folder) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = f.record.WriteAt(b, 0)
	return err
}

// ErrNoProcess says that a folder's record names no process that lives.
var ErrNoProcess = errors.New("no process")

// ErrNoRecord says that a machine was begun here whose process was not recorded: a
// daemon was killed in between. What listens in the folder can tell.
var ErrNoRecord = errors.New("the process was not recorded")

// Process opens the process that the record names, if it still is that one, and reads
// what the machine is into model, if that is not nil.
func (f *Folder) Process(model any) (*Process, error) {
	var r record
	err := json.NewDecoder(io.NewSectionReader(f.record, 0, 64<<10)).Decode(&r)
	if f.model = r.Model; err == nil && model != nil {
		err = json.Unmarshal(r.Model, model)
	}
	if err != nil || r.PID == 0 {
		return nil, errors.Join(ErrNoProcess, ErrNoRecord, err)
	}
	if boot, err := BootID(); err != nil || boot != r.Boot {
		return nil, errors.Join(ErrNoProcess, err)
	}
	p, err := OpenProcess(r.PID, nil)
	if err != nil {
		return nil, errors.Join(ErrNoProcess, err)
	}
	// Compared after the process was opened: its id cannot change hands any more.
	if start, err := StartTime(r.PID); err != nil || start != r.Start || p.Zombie() {
		p.Close()
		return nil, errors.Join(ErrNoProcess, err)
	}
	return p, nil
}

// Listen makes a listening socket, for a VMM to inherit: connections made before it
// runs wait for it.
func (f *Folder) Listen(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := os.NewFile(uintptr(fd), name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: at(f.Dir.Fd(), name)})
	if err == nil {
		err = unix.Fchmodat(int(f.Dir.Fd()), name, 0o600, 0)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = s.Close() // the first error is the one to tell
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(f.Path, name), err)
	}
	return s, nil
}

// at returns a path of name in an open folder that is short enough for a socket.
func at(dir uintptr, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name) }

// dialRetry is how long to wait where the VMM has not yet accepted the connections
// before this one. The kernel has no event for it.
const dialRetry = 5 * time.Millisecond

// Dial connects to a socket of the folder. The connection may wait for the VMM.
func (f *Folder) Dial(ctx context.Context, name string) (net.Conn, error) {
	for {
		conn, err := f.connect(name)
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		select {
		case <-time.After(dialRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *Folder) connect(name string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := os.NewFile(uintptr(fd), name)
	defer s.Close() //nolint:errcheck // FileConn has its own descriptor
	raw, err := f.Dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Within Control the folder's descriptor cannot be closed and be another's.
	var connected error
	if err := raw.Control(func(dir uintptr) {
		connected = unix.Connect(fd, &unix.SockaddrUnix{Name: at(dir, name)})
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", os.ErrClosed, err) // the only reason, told in package os' own way
	}
	if connected != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(f.Path, name), connected)
	}
	return net.FileConn(s)
}

// MakePipe makes a named pipe and returns its ends: two for reading, one of which
// is for the VMM to hold, and one for writing that never blocks.
func (f *Folder) MakePipe(name string) (ours, held, w *os.File, err error) {
	if err := unix.Mkfifoat(int(f.Dir.Fd()), name, 0o600); err != nil {
		return nil, nil, nil, &os.PathError{Op: "mkfifo", Path: filepath.Join(f.Path, name), Err: err}
	}
	if ours, err = f.OpenPipe(name); err != nil {
		return nil, nil, nil, err
	}
	if held, err = f.OpenPipe(name); err == nil {
		w, err = OpenAt(f.Dir, name, unix.O_WRONLY|unix.O_NOFOLLOW, 0)
	}
	if err == nil {
		// Behind os.File's back: it would undo this when the file is inherited.
		err = unix.SetNonblock(int(w.Fd()), true)
	}
	if err != nil {
		CloseAll(ours, held, w)
		return nil, nil, nil, err
	}
	return ours, held, w, nil
}

// OpenPipe opens the reading end of a named pipe.
func (f *Folder) OpenPipe(name string) (*os.File, error) {
	return OpenAt(f.Dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
}

// OpenLog opens the log name, which stays when the machine has ended.
func (f *Folder) OpenLog(name string, resume bool) (*tail.Log, error) {
	file, err := OpenAt(f.Dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return tail.New(file, resume)
}

// Clear removes everything but the logs, the record last: while it is there the
// folder is ours.
func (f *Folder) Clear() {
	for _, name := range append(f.names, recordName) {
		// Whoever removes the folder meets what could not be removed here. A folder may
		// hold what a process left that was ended.
		if unix.Unlinkat(int(f.Dir.Fd()), name, 0) != nil {
			_ = os.RemoveAll(filepath.Join(f.Path, name))
		}
	}
}

// Close gives up the claim.
func (f *Folder) Close() { CloseAll(f.record, f.Dir) }
