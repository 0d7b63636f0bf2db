//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/frame"
)

// stdio is both ends of a process's input and output.
type stdio struct {
	stdin    io.WriteCloser // nil if it has none
	stdout   *output
	stderr   *output  // nil for a terminal
	terminal *os.File // the master, nil for pipes
	child    []*os.File
}

// openPipes makes pipes for output, and for input if asked.
func openPipes(input bool) (s *stdio, err error) {
	s = &stdio{}
	defer func() {
		if err != nil {
			s.close()
			s.closeChild()
		}
	}()
	if input {
		r, w, err := pipe()
		if err != nil {
			return s, err
		}
		s.child = append(s.child, r)
		if s.stdin, err = nonblocking(w); err != nil {
			return s, err
		}
	} else {
		null, err := devNull()
		if err != nil {
			return s, err
		}
		s.child = append(s.child, null)
	}
	for _, out := range []**output{&s.stdout, &s.stderr} {
		r, w, err := pipe()
		if err != nil {
			return s, err
		}
		s.child = append(s.child, w)
		f, err := nonblocking(r)
		if err != nil {
			return s, err
		}
		if *out, err = newOutput(f); err != nil {
			return s, err
		}
	}
	return s, nil
}

// pipe returns blocking ends: programs do not expect others.
func pipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// nonblocking returns f in the care of the runtime's poller. It takes f over.
func nonblocking(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (s *stdio) childFDs() []uintptr {
	var fds []uintptr
	for _, f := range s.child {
		fds = append(fds, f.Fd())
	}
	if s.terminal != nil {
		return []uintptr{fds[0], fds[0], fds[0]}
	}
	return fds
}

func (s *stdio) closeChild() {
	for _, f := range s.child {
		_ = f.Close() // the child has its own
	}
}

// close closes the harness's ends, when there will be no process.
func (s *stdio) close() {
	if s.stdin != nil {
		_ = s.stdin.Close() // nothing was written
	}
	for _, o := range []*output{s.stdout, s.stderr} {
		if o != nil {
			_ = o.Close() // nothing was read
		}
	}
}

func (s *stdio) settle() {
	for _, o := range []*output{s.stdout, s.stderr} {
		if o != nil {
			o.settle()
		}
	}
}

// output reads a pipe or a terminal.
type output struct {
	file    *os.File
	raw     syscall.RawConn
	settled atomic.Bool
	closing sync.Once
}

func newOutput(f *os.File) (*output, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &output{file: f, raw: raw}, nil
}

// Read implements io.Reader. After settle it ends where it would wait.
func (o *output) Read(p []byte) (int, error) {
	if !o.settled.Load() {
		n, err := o.file.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	var n int
	var err error
	if ctlErr := o.raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), p) }); ctlErr != nil {
		return 0, ctlErr
	}
	if n <= 0 { // the end, EAGAIN, or EIO from a terminal
		return 0, io.EOF
	}
	return n, err
}

func (o *output) settle() {
	o.settled.Store(true)
	_ = o.file.SetReadDeadline(past) // closed already, if it fails
}

// Close implements io.Closer.
func (o *output) Close() (err error) {
	o.closing.Do(func() { err = o.file.Close() })
	return err
}

// openTerminal makes a pseudo terminal in the root's devpts.
func openTerminal(size frame.Winsize, owner uint32) (*stdio, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	slave, err := openSlave(fd, owner)
	if err == nil {
		err = setWinsize(master, size)
	}
	if err != nil {
		_ = master.Close() // nobody has used it
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	out, err := newOutput(master)
	if err != nil {
		return nil, err
	}
	return &stdio{stdin: &terminalInput{master}, stdout: out, terminal: master, child: []*os.File{slave}}, nil
}

func openSlave(master int, owner uint32) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetUint32(master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/dev/pts/%d", n)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const ttyGroup = 5
	if err := unix.Fchown(fd, int(owner), ttyGroup); err != nil {
		_ = unix.Close(fd) // nobody has used it
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// terminalInput is the keyboard. Its end is what Ctrl-D types; the terminal itself
// stays, as it is the output too.
type terminalInput struct{ master *os.File }

func (t *terminalInput) Write(p []byte) (int, error) { return t.master.Write(p) }

func (t *terminalInput) Close() error {
	_, err := t.master.Write([]byte{4})
	return err
}

func setWinsize(f *os.File, size frame.Winsize) error {
	return control(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: size.Cols, Row: size.Rows})
	})
}

// foreground returns the process group that has the terminal.
func foreground(f *os.File) (group int, err error) {
	err = control(f, func(fd int) error {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return group, err
}

// control runs f on the descriptor without taking it from the poller, as Fd would.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}
