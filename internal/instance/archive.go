package instance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// Archive keeps machines as they were at one moment: what forks are made of, and
// snapshots. Package machine implements it. Its methods may be called together.
type Archive interface {
	// Capture begins to take an instance as it is. If it has a machine, which may run,
	// everything that takes time is done, and Capture.Take follows. Else what there is is
	// taken at once: its saved memory and its disk, or its disk alone. The instance's
	// disk goes on as a branch of what was taken.
	Capture(ctx context.Context, id ID, spec Spec, live bool) (Capture, error)

	// Snapshots lists what was kept, oldest first.
	Snapshots(ctx context.Context) ([]Snapshot, error)

	// OpenSnapshot returns one, by its id or name, to start machines from.
	OpenSnapshot(ctx context.Context, ref string) (Snapshot, Capture, error)

	// DeleteSnapshot removes one. Machines that were started from it go on.
	DeleteSnapshot(ctx context.Context, ref string) error
}

// Capture is an instance as it was at one moment. It is given up with Release. Take and
// Onward are of the instance it was taken of; what follows may be called for any number
// of others, together, once Ready has returned.
type Capture interface {
	// Take takes machine m, which is paused and stays so. If moved is true, its memory
	// was taken away from it: the caller ends it and starts the machine that Onward
	// plans in its place. After an error nothing was taken, and m is paused as it was or
	// has ended.
	Take(ctx context.Context, m vmm.Machine) (moved bool, err error)

	// Onward plans how the instance itself goes on after it was moved.
	Onward() Plan

	// Ready does what need not be done while the machine stands still, so that any number of
	// machines can start from the capture.
	Ready(ctx context.Context) error

	// Cold reports that there is no memory in it: what starts from it boots.
	Cold() bool

	// Lay makes what was captured the disk of an instance, in place of what it had.
	Lay(ctx context.Context, id ID) error

	// Start plans the start of an instance whose disk was laid. Of a cold one it is what
	// Prepare returns.
	Start(ctx context.Context, id ID, spec Spec, magic guestproto.Magic) (Plan, error)

	// Keep makes a snapshot of it, for good. A name that another has is a conflict.
	Keep(ctx context.Context, name string, of Origin) (Snapshot, error)

	// Release gives up what was not kept. Machines that were started from it go on.
	Release()
}

// Origin is what must be known of the instance that was captured, beside its machine.
type Origin struct {
	ID     ID
	Spec   Spec
	Given  []string         // names of the secrets that its program was started with
	Magic  guestproto.Magic // opens the link to a machine that starts from it
	Offset uint64           // how far its program's output was stored
	Listen time.Duration    `json:",omitzero"` // what the program had left to begin to listen
}

// SnapshotID names a snapshot for ever. IDs sort by their time of creation.
type SnapshotID string

// NewSnapshotID returns "snap-", the milliseconds since 1970 in hex, and 40 random bits.
func NewSnapshotID() SnapshotID {
	var r [5]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return SnapshotID(fmt.Sprintf("snap-%011x%s", time.Now().UnixMilli(), hex.EncodeToString(r[:])))
}

// Snapshot is a capture that was kept.
type Snapshot struct {
	ID      SnapshotID
	Name    string // unique; its ID if it was given none
	Created time.Time
	Size    size.Bytes // on the host's disk, without what it shares with others
	Cold    bool       // it has a disk and no memory
	Origin  Origin
}
