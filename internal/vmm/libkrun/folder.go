package libkrun

import (
	"bufio"
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
	"github.com/xfeldman/aegisvm/internal/vmm/libkrun/recipe"
	"github.com/xfeldman/aegisvm/internal/vmm/tail"
)

// Names in Spec.Dir.
const (
	recordName  = "vmm.json"
	lifeName    = "life"
	ctlName     = "ctl"
	netName     = "net"
	consoleName = "console"
	wordsName   = "vmm"
	logSuffix   = ".log"
)

// conn is a connection to a worker.
type conn = net.Conn

// record tells which process runs a folder's machine: PID is 0 until there is one.
type record struct {
	PID   int
	Start uint64 // as startTime has it
	Boot  string // id of the host's boot
}

// folder is a machine's Spec.Dir, claimed: the lock on its record is held.
type folder struct {
	path   string
	dir    *os.File
	record *os.File
}

var (
	errClaimed   = errors.New("another process has taken this machine")
	errNoProcess = errors.New("no process")
)

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
		p, life, err := f.process(ctx)
		if err == nil {
			closeConn(life)
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
	if f.record, err = f.open(recordName, flags|unix.O_RDWR|unix.O_NOFOLLOW); err != nil {
		closeAll(dir)
		return nil, err
	}
	if err := f.lock(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) open(name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(f.dir.Fd()), name, flags|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: filepath.Join(f.path, name), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
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
	return f.write(record{PID: pid, Start: start, Boot: boot})
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

// process opens the process that the record names, if it still is that one, and a
// connection to its life socket.
func (f *folder) process(ctx context.Context) (*process, conn, error) {
	var r record
	err := json.NewDecoder(io.NewSectionReader(f.record, 0, 4096)).Decode(&r)
	life, dialErr := f.dial(ctx, lifeName)
	if dialErr != nil {
		return nil, nil, errors.Join(errNoProcess, dialErr)
	}
	var p *process
	if err != nil || r.PID == 0 {
		p, err = f.unrecorded(ctx, life)
	} else {
		p, err = r.process()
	}
	if err != nil {
		closeConn(life)
		return nil, nil, errors.Join(errNoProcess, err)
	}
	return p, life, nil
}

// process opens the process of the record.
func (r *record) process() (*process, error) {
	if boot, err := bootID(); err != nil || boot != r.Boot {
		return nil, errors.Join(errNoProcess, err)
	}
	p, err := findProcess(r.PID)
	if err != nil {
		return nil, err
	}
	// Compared after the process was opened: its id cannot change hands any more, where
	// the system has handles for processes.
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		p.close()
		return nil, errors.Join(errNoProcess, err)
	}
	return p, nil
}

// unrecorded opens the process that says hello: a daemon that was killed between
// starting it and writing the record left no other trace.
func (f *folder) unrecorded(ctx context.Context, life conn) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = life.SetReadDeadline(time.Unix(1, 0)) }) // ends the read
	defer stop()
	h, err := readHello(bufio.NewReader(life))
	if err != nil {
		return nil, err
	}
	p, err := findProcess(h.PID)
	if err != nil {
		return nil, err
	}
	if err := f.started(h.PID); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// maxHello bounds a worker's first line.
const maxHello = 256

func readHello(from *bufio.Reader) (recipe.Hello, error) {
	var h recipe.Hello
	var line []byte
	for len(line) < maxHello {
		b, err := from.ReadByte()
		if err != nil {
			return h, err
		}
		if b == '\n' {
			return h, json.Unmarshal(line, &h)
		}
		line = append(line, b)
	}
	return h, errors.New("a worker that says something else")
}

// has tells whether something of that name is in the folder.
func (f *folder) has(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(f.dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// listen makes a listening socket. The worker inherits it; connections made before it
// runs wait for it.
func (f *folder) listen(name string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.at(name), Net: "unix"})
	if err != nil {
		return nil, errSocket(f.path, err)
	}
	defer l.Close() //nolint:errcheck // File has its own descriptor
	l.SetUnlinkOnClose(false)
	if err := unix.Fchmodat(int(f.dir.Fd()), name, 0o600, 0); err != nil {
		return nil, fmt.Errorf("mode of %s: %w", filepath.Join(f.path, name), err)
	}
	return l.File()
}

// dialRetry is how long to wait where a paused worker has not yet accepted the
// connections before this one. The kernel has no event for it.
const dialRetry = 5 * time.Millisecond

// dial connects to a socket of the folder. The connection may wait for the worker.
func (f *folder) dial(ctx context.Context, name string) (conn, error) {
	for {
		c, err := f.connect(name)
		if !errors.Is(err, unix.EAGAIN) {
			return c, err
		}
		select {
		case <-time.After(dialRetry):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (f *folder) connect(name string) (conn, error) {
	raw, err := f.dir.SyscallConn()
	if err != nil {
		return nil, err
	}
	// Within Control the folder's descriptor cannot be closed and be another's.
	var c *net.UnixConn
	var connected error
	if err := raw.Control(func(uintptr) {
		c, connected = net.DialUnix("unix", nil, &net.UnixAddr{Name: f.at(name), Net: "unix"})
	}); err != nil {
		return nil, fmt.Errorf("%w: %w", os.ErrClosed, err) // the only reason, told in package os' own way
	}
	if connected != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(f.path, name), connected)
	}
	return c, nil
}

// makePipe makes a named pipe and returns its ends: two for reading, one of which is
// for the worker to hold, and one for writing that never blocks.
func (f *folder) makePipe(name string) (ours, held, w *os.File, err error) {
	if err := f.mkfifo(name); err != nil {
		return nil, nil, nil, &os.PathError{Op: "mkfifo", Path: filepath.Join(f.path, name), Err: err}
	}
	if ours, err = f.openPipe(name); err != nil {
		return nil, nil, nil, err
	}
	if held, err = f.openPipe(name); err == nil {
		w, err = f.open(name, unix.O_WRONLY|unix.O_NOFOLLOW)
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
	return f.open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW)
}

// openLog opens the log name, which stays when the machine has ended.
func (f *folder) openLog(name string, resume bool) (*tail.Log, error) {
	file, err := f.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	return tail.New(file, resume)
}

// clear removes everything but the logs, the record last: while it is there the folder
// is ours.
func (f *folder) clear() {
	for _, name := range []string{lifeName, ctlName, netName, consoleName, wordsName, recordName} {
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

func closeConn(c conn) {
	if c != nil {
		_ = c.Close() // whoever is at the other end finds out
	}
}
