// Package guestlink is the host's end of the pipe to PID 1 of a VM.
//
// A Link holds one session with the guest at a time and makes a new one whenever
// the pipe drops: it dials, sends openings until the guest echoes one, throws away
// all that came before (bytes of earlier sessions), starts yamux, and says Hello,
// naming the processes it still owns. Callers see none of that. Requests that had
// no answer are sent again with the same ID; an Attachment goes on at the offset
// where it was, in both directions.
//
// # Goroutines
//
// A Link has one goroutine that connects, and within a session one that reads and
// one that writes the control stream, and a writer for each Attachment. Reading an
// Attachment is done by whoever calls Recv: a consumer that stops reading fills one
// yamux window and stops its process, and nothing else. Close waits for all.
//
// # Trust
//
// Everything that comes from the guest is hostile. Messages and frames are bounded,
// streams opened by the guest and pings (yamux answers each in a goroutine) end the
// session, texts are cut and cleaned before a person sees them. A guest can break
// its own link and nothing else.
package guestlink
