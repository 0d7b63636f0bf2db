package guestproto

// StreamCopy carries files out of the guest or into it: a tar stream (PAX) in frames
// of package frame, at most CopyChunk bytes in each. Package tree tells what stands in
// it. Only guests with AbilityCopy have it.
//
//   - read: the guest sends the tar stream in Stdout frames.
//   - write: the host sends it in Stdin frames, then EOF. A stream that ends without
//     EOF was given up; what was written of it stays, whole files only.
//
// Both ways the guest sends a line of text in a Stderr frame for each thing that was
// left out, at most CopyNotes of them, and last either Exit with status 0, when all
// is done, or Error with an Error. So an error in the middle is never taken for the
// end. The streams' windows carry the backpressure.
const StreamCopy StreamKind = "copy"

// AbilityCopy is the name of StreamCopy in Welcome.
const AbilityCopy = "copy"

// AbilityChanges is the name of Copy.Changes in Welcome.
const AbilityChanges = "changes"

// Copy says what a copy stream carries.
type Copy struct {
	// Path in the guest, absolute. How it ends matters: "/" asks for a folder, "/." for
	// what is in one.
	Path      string    `json:"path"`
	Direction Direction `json:"direction"`
	Owners    bool      `json:"owners,omitempty"`  // write: keep numeric owners; else all belongs to root
	Extract   bool      `json:"extract,omitempty"` // write: any archive, into the folder Path
	// Changes is a read of what has changed on the machine's image, as a layer of a
	// container image: with devices and attributes, and whiteouts for what is gone. Path
	// is /. Only guests with AbilityChanges have it.
	Changes bool `json:"changes,omitempty"`
}

// Direction is where the bytes of a copy go, seen from the guest's files.
type Direction string

// The directions.
const (
	Read  Direction = "read"
	Write Direction = "write"
)

const (
	// CopyChunk is the most that a frame of a copy carries.
	CopyChunk = 64 << 10
	// CopyNotes is the most lines about what was left out.
	CopyNotes = 32
)
