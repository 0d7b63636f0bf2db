package instance

import (
	"context"
	"io"
	"time"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Ground prepares what a machine stands on, and clears it away again. Package
// machine implements it.
type Ground interface {
	// Prepare makes the instance's folder with its disks, where they are not there
	// yet, and returns the recipe of its machine. The guest's first magic is magic.
	// After an error nothing is left but what was there before.
	Prepare(ctx context.Context, id ID, spec Spec, magic guestproto.Magic) (vmm.Spec, error)

	// DiskUse returns what the instance's files take on the host's disk.
	DiskUse(id ID) (size.Bytes, error)

	// Clear removes everything of the instance from the disk. It is idempotent.
	Clear(id ID) error

	// Dir returns the folder of the instance's machine, vmm.Spec.Dir. It need not
	// exist.
	Dir(id ID) string

	// Leftovers lists the instances that have a folder.
	Leftovers() ([]ID, error)
}

// Linker opens links. Package guestlink implements it.
type Linker interface {
	// Link makes the first handshake with the guest of m. It returns when the guest
	// is ready for work; a guest that tells why it cannot be is a *fault.Error.
	Link(ctx context.Context, m vmm.Machine, magic guestproto.Magic, hello guestproto.Hello) (Guest, error)
}

// Guest is the link to PID 1 of one running VM. Its methods may be called
// together. They return ctx's cause when ctx ends first, which is what happens in a
// guest that is paused.
type Guest interface {
	Spawn(ctx context.Context, req guestproto.Spawn) error

	// Attach streams the process's output from offset, and its input. One Attachment
	// for each process at a time; it stays valid over reconnects of the link.
	Attach(ctx context.Context, exec guestproto.ExecID, offset uint64) (Attachment, error)

	Kill(ctx context.Context, exec guestproto.ExecID, signal int) error

	// Thaw sets the guest's clock and reseeds its random numbers, then lets frozen
	// processes run.
	Thaw(ctx context.Context) error

	// CopyOut writes the file or tree at req.Path to w, as a tar stream; CopyIn
	// unpacks one from r at req.Path, and closes r when it takes no more of it. Both
	// return when all is done, with notes on what was left out. A copy is not resumed
	// after a reconnect.
	CopyOut(ctx context.Context, req guestproto.Copy, w io.Writer) (notes []string, err error)
	CopyIn(ctx context.Context, req guestproto.Copy, r io.ReadCloser) (notes []string, err error)

	// PowerOff asks for an orderly end; the machine's Wait tells when it came.
	PowerOff(ctx context.Context, grace time.Duration) error

	// Close ends the link. Attachments end with an error; the guest is not told.
	Close() error
}

// Secrets opens what is stored of secrets. Package vault implements it.
type Secrets interface {
	// Resolve returns the values of the named secrets; of all there are, if AllSecrets
	// is among the names. Names that are not stored are an error that tells them.
	Resolve(ctx context.Context, names []string) (map[string]secret.Value, error)
}

// Attachment is a live, binary-clean connection to one process in a guest.
//
// Recv and Send may be used by one goroutine each, Close by any. Not reading
// stops the process when its buffer is full; nothing is dropped.
type Attachment interface {
	// Offset returns the end of the last frame that Recv returned, in the process's
	// output log.
	Offset() uint64

	// Recv returns the next Stdout, Stderr, Notice or Exit frame; io.EOF after Exit. The
	// payload is valid until the next call.
	Recv() (frame.Frame, error)

	// Send takes Stdin, EOF, Resize and Signal frames. It blocks while the process
	// does not read.
	Send(f frame.Frame) error

	// Close detaches. The process goes on.
	Close() error
}
