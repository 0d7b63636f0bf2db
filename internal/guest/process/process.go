package process

import (
	"io"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Launcher starts processes.
type Launcher interface {
	// Launch starts the command of req in its own session and cgroup. Errors that the
	// host is to understand are *guestproto.Error. After an error nothing is left.
	Launch(req guestproto.Spawn) (Process, error)
}

// Process is a command that runs, together with all it starts.
type Process interface {
	PID() int

	// Outputs returns what the process writes to. A terminal has one output. Each
	// ends when nothing can write to it any more.
	Outputs() []Output

	// Stdin returns the input, or nil if the process has none.
	Stdin() io.WriteCloser

	// Resize sets the size of the terminal; it does nothing where there is none.
	Resize(size frame.Winsize) error

	// Signal is what a terminal's user sends: to the foreground group of the
	// terminal, or to the process where there is none.
	Signal(sig int) error

	// Kill signals every process there is of the exec.
	Kill(sig int) error

	// Wait returns the status once the process has ended: 0-255, or 128 and the
	// signal's number. It is called once.
	Wait() int32

	// OutOfMemory reports whether the kernel has killed a process of the exec for
	// memory. It is called between Wait and Release.
	OutOfMemory() bool

	// Release kills what is left of the exec after Wait, and frees what it held.
	// The outputs end when they are drained.
	Release()
}

// Output is one stream of a process.
type Output struct {
	Type   frame.Type // Stdout or Stderr
	Reader io.ReadCloser
}
