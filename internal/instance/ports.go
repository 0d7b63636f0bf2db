package instance

import (
	"context"
	"io"
	"net"
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
	// yet, and says how its machine is to be started: from its own saved memory, else as
	// a clone of a template, else, or if cold is set, by a boot with that magic. After an
	// error nothing is left but what was there before; Plan.Kind says what was tried.
	Prepare(ctx context.Context, id ID, spec Spec, magic guestproto.Magic, cold bool) (Plan, error)

	// Started says that the instance's program has been started. Until then a machine
	// that is found is of a start that was cut off.
	Started(id ID) error

	// CutOff reports whether the instance's last start was cut off, by the death of a
	// daemon.
	CutOff(id ID) bool

	// Save writes the memory of the instance's machine, which is paused and stays so.
	// When it returns nil, that is on disk for good, and the next Prepare goes on with
	// it, until Spend. After an error there is nothing saved.
	Save(ctx context.Context, id ID, m vmm.Machine) error

	// Spend withdraws what Save wrote, for good, if there is something. It comes before
	// anything that changes the instance's disk.
	Spend(ctx context.Context, id ID) error

	// Saved reports whether the instance's memory is saved.
	Saved(id ID) bool

	// Tidy brings the files of an instance without a machine and without saved memory into
	// order, where it is time for that: its disk may be in many pieces. It may take as long as it
	// takes to copy the disk. After an error everything is as it was.
	Tidy(ctx context.Context, id ID) error

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

// Plan says how a machine is to be started.
type Plan struct {
	Kind   StartKind
	Recipe vmm.Spec
	Source vmm.Source
	Magic  guestproto.Magic // opens the link to a Clone or Fork the first time
	// Failed is told why no machine could be started from Source, before Release. Nil does
	// not want to know.
	Failed func(error)
	// Release gives back what Source is made of, once the machine has been started, or
	// has not. Nil is nothing.
	Release func()
}

// StartKind is how a machine comes to be.
type StartKind uint8

// The kinds.
const (
	Cold  StartKind = iota // the kernel boots
	Clone                  // of a template, which has booted and runs nothing yet
	Wake                   // the instance's own memory goes on
	Fork                   // memory of another instance, or of this one's past, goes on
)

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

	// Dial connects to host:port inside the guest, over the link. A port on which
	// nothing listens is fault.Unavailable. The connection has CloseWrite.
	Dial(ctx context.Context, addr string) (net.Conn, error)

	// AcceptAPI waits until a program in the guest connects to the Guest API, and returns
	// the connection. It waits over sleep and sessions; a connection ends with its session.
	// A guest that knows no Guest API is fault.Unavailable.
	AcceptAPI(ctx context.Context) (net.Conn, error)

	// Mount has the guest mount folders of the host, but for those that it has mounted
	// already. Their server must be answering.
	Mount(ctx context.Context, req guestproto.Mount) error

	// Freeze has the guest write back what is dirty and stop all user processes. It
	// returns those that did not stop within the deadline.
	Freeze(ctx context.Context, deadline time.Duration) (stuck []string, err error)

	// Thaw sets the guest's clock and reseeds its random numbers, then lets frozen
	// processes run.
	Thaw(ctx context.Context) error

	// CopyOut writes the file or tree at req.Path to w, as a tar stream; CopyIn
	// unpacks one from r at req.Path, and closes r when it takes no more of it. Both
	// return when all is done, with notes on what was left out. A copy is not resumed
	// after a reconnect.
	CopyOut(ctx context.Context, req guestproto.Copy, w io.Writer) (notes []string, err error)
	CopyIn(ctx context.Context, req guestproto.Copy, r io.ReadCloser) (notes []string, err error)

	// Stats returns what the guest says of its own use.
	Stats(ctx context.Context) (guestproto.Stats, error)

	// Harness returns the build version of the guest's PID 1.
	Harness() string

	// PowerOff asks for an orderly end; the machine's Wait tells when it came.
	PowerOff(ctx context.Context, grace time.Duration) error

	// Suspend parts the link from its machine, which is about to end with its memory
	// saved. Requests and Attachments wait until Reopen.
	Suspend()

	// Reopen goes on with the link to the machine that has that memory now.
	Reopen(ctx context.Context, m vmm.Machine, hello guestproto.Hello) error

	// Close ends the link. Attachments end with an error; the guest is not told.
	Close() error
}

// GuestAPI answers what programs in guests ask of the host. Package guestapi implements
// it.
type GuestAPI interface {
	// Serve answers the requests on a connection that comes from an instance, until it
	// ends or ctx does, and closes it. Many are served together.
	Serve(ctx context.Context, id ID, conn net.Conn)
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
