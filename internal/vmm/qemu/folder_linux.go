package qemu

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

// Names in Spec.Dir.
const (
	recordName  = "vmm.json"
	qmpName     = "qmp"
	ctlName     = "ctl"
	netName     = "net"
	consoleName = "console"
	wordsName   = "vmm"
	logSuffix   = ".log"
)

// record tells what a folder's machine is, and which process runs it: PID is 0 until
// there is one.
type record struct {
	PID   int
	Start uint64 // in ticks since boot
	Boot  string // id of the host's boot
	Model model
}

// folder is a machine's Spec.Dir, claimed: the lock on its record is held.
type folder struct {
	path   string
	dir    *os.File
	record *os.File
	model  model
}

var errClaimed = errors.New("another process has taken this machine")

// makeFolder claims a folder for a new machine. What a machine that has ended left
// there is removed.
func makeFolder(ctx context.Context, path string) (*folder, error) {
	for range 3 {
		f, err := openFolder(path, unix.O_CREAT|unix.O_EXCL)
		if !errors.Is(err, unix.EEXIST) {
			return f, err
		}
		if f, err = openFolder(path, 0); errors.Is(err, unix.ENOENT) {
			continue // whoever had it has just let go
		} else if err != nil {
			return nil, err
		}
		p, err := f.process(ctx)
		if err == nil {
			p.close()
			f.close()
			return nil, fault.New(fault.Conflict, "a machine runs in %s", path)
		}
		f.clear()
		f.close()
	}
	return nil, fault.New(fault.Conflict, "%s is in use", path)
}

// openFolder opens a folder and its record, and takes the lock.
func openFolder(path string, flags int) (*folder, error) {
	dir, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := &folder{path: path, dir: dir}
	if f.record, err = openAt(dir, recordName, flags|unix.O_RDWR|unix.O_NOFOLLOW, 0o600); err != nil {
		_ = dir.Close() // nothing was written
		return nil, err
	}
	if err := f.lock(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) lock() error {
	if err := unix.Flock(int(f.record.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fault.Wrap(fault.Conflict, errClaimed, "%s", f.path)
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", f.record.Name(), err)
	}
	// The record may have been removed, and another made, while we opened it.
	var ours, there unix.Stat_t
	if err := unix.Fstat(int(f.record.Fd()), &ours); err != nil {
		return err
	}
	err := unix.Fstatat(int(f.dir.Fd()), recordName, &there, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (ours.Ino != there.Ino || ours.Dev != there.Dev) {
		err = unix.ENOENT
	}
	return err
}

// begin records what machine will be here.
func (f *folder) begin(m model) error {
	f.model = m
	return f.write(record{Model: m})
}

// started records the process of the machine.
func (f *folder) started(pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	return f.write(record{PID: pid, Start: start, Boot: boot, Model: f.model})
}

// write replaces the record. It never gets shorter.
func (f *folder) write(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = f.record.WriteAt(b, 0)
	return err
}

var errNoProcess = errors.New("no process")

// process opens the process that the record names, if it still is that one.
func (f *folder) process(ctx context.Context) (*process, error) {
	var r record
	err := json.NewDecoder(io.NewSectionReader(f.record, 0, 4096)).Decode(&r)
	f.model = r.Model
	if err != nil || r.PID == 0 {
		return f.listener(ctx)
	}
	if boot, err := bootID(); err != nil || boot != r.Boot {
		return nil, errors.Join(errNoProcess, err)
	}
	p, err := openProcess(r.PID, nil)
	if err != nil {
		return nil, errors.Join(errNoProcess, err)
	}
	// Compared after the process was opened: its id cannot change hands any more.
	if start, err := startTime(r.PID); err != nil || start != r.Start || p.zombie() {
		p.close()
		return nil, errors.Join(errNoProcess, err)
	}
	return p, nil
}

// listener opens the process that listens on the machine's sockets: a daemon that
// was killed between starting QEMU and writing the record left no other trace.
func (f *folder) listener(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	conn, err := f.dial(ctx, qmpName)
	if err != nil {
		return nil, errors.Join(errNoProcess, err)
	}
	// The kernel tells who listened last when the connection was made, which may be
	// the dead daemon; QEMU does so before it greets.
	q, err := newQMP(ctx, conn)
	if err != nil {
		return nil, errors.Join(errNoProcess, err)
	}
	q.Close()
	if conn, err = f.dial(ctx, qmpName); err != nil {
		return nil, errors.Join(errNoProcess, err)
	}
	pid, err := peer(conn)
	if err != nil {
		_ = conn.Close() // only asked who is there
		return nil, errors.Join(errNoProcess, err)
	}
	p, err := openProcess(pid, nil)
	if err != nil {
		_ = conn.Close() // only asked who is there
		return nil, errors.Join(errNoProcess, err)
	}
	// A second greeting proves that the process was alive after it was opened.
	if q, err = newQMP(ctx, conn); err != nil {
		p.close()
		return nil, errors.Join(errNoProcess, err)
	}
	q.Close()
	return p, f.started(pid)
}

// peer returns the process that listens at the other end of conn.
func peer(conn net.Conn) (int, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var got error
	if err := raw.Control(func(fd uintptr) { cred, got = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if got != nil {
		return 0, got
	}
	return int(cred.Pid), nil
}

// listen makes a listening socket. QEMU inherits it; connections made before it
// runs wait for it.
func (f *folder) listen(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := os.NewFile(uintptr(fd), name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: f.at(f.dir.Fd(), name)})
	if err == nil {
		err = unix.Fchmodat(int(f.dir.Fd()), name, 0o600, 0)
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		_ = s.Close() // the first error is the one to tell
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(f.path, name), err)
	}
	return s, nil
}

// at returns a path of name in the folder that is short enough for a socket.
func (f *folder) at(dir uintptr, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
}

// dialRetry is how long to wait where QEMU has not yet accepted the connections
// before this one. The kernel has no event for it.
const dialRetry = 5 * time.Millisecond

// dial connects to a socket of the folder. The connection may wait for QEMU.
func (f *folder) dial(ctx context.Context, name string) (net.Conn, error) {
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

func (f *folder) connect(name string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := os.NewFile(uintptr(fd), name)
	defer s.Close() //nolint:errcheck // FileConn has its own descriptor
	raw, err := f.dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Within Control the folder's descriptor cannot be closed and be another's.
	var connected error
	if err := raw.Control(func(dir uintptr) {
		connected = unix.Connect(fd, &unix.SockaddrUnix{Name: f.at(dir, name)})
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", os.ErrClosed, err) // the only reason, told in package os' own way
	}
	if connected != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(f.path, name), connected)
	}
	return net.FileConn(s)
}

// makePipe makes a named pipe and returns its ends: two for reading, one of which
// is for QEMU to hold, and one for writing that never blocks.
func (f *folder) makePipe(name string) (ours, held, w *os.File, err error) {
	if err := unix.Mkfifoat(int(f.dir.Fd()), name, 0o600); err != nil {
		return nil, nil, nil, &os.PathError{Op: "mkfifo", Path: filepath.Join(f.path, name), Err: err}
	}
	if ours, err = f.openPipe(name); err != nil {
		return nil, nil, nil, err
	}
	if held, err = f.openPipe(name); err == nil {
		w, err = openAt(f.dir, name, unix.O_WRONLY|unix.O_NOFOLLOW, 0)
	}
	if err == nil {
		// Behind os.File's back: it would undo this when the file is inherited.
		err = unix.SetNonblock(int(w.Fd()), true)
	}
	if err != nil {
		closeAll(ours, held, w)
		return nil, nil, nil, err
	}
	return ours, held, w, nil
}

// openPipe opens the reading end of a named pipe.
func (f *folder) openPipe(name string) (*os.File, error) {
	return openAt(f.dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
}

// openLog opens the log name, which stays when the machine has ended.
func (f *folder) openLog(name string, resume bool) (*tail.Log, error) {
	file, err := openAt(f.dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return tail.New(file, resume)
}

// clear removes everything but the logs, the record last: while it is there the
// folder is ours.
func (f *folder) clear() {
	for _, name := range []string{qmpName, ctlName, netName, consoleName, wordsName, recordName} {
		// Whoever removes the folder meets what could not be removed here.
		_ = unix.Unlinkat(int(f.dir.Fd()), name, 0)
	}
}

// close gives up the claim.
func (f *folder) close() { closeAll(f.record, f.dir) }

// closeAll closes what was only used, not written to.
func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
