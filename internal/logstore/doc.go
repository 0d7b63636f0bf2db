// Package logstore keeps what an instance's processes wrote, on disk, within a
// limit.
//
// A Log is a folder of segments. Appending writes a record (a chunk of output with
// its time, stream and source) to the newest segment; when that is full a new one
// is begun and the oldest go. Records carry a checksum: what a killed daemon left
// half written is cut off at the next Open. Nothing is synced: a crash of the host
// may cost the last seconds of a log, a crash of the daemon costs nothing.
//
// Chunks are kept as they came, with the offset they had in the guest's output log,
// so that a new daemon goes on where the last one stored. Lines are put together by
// the reader. Readers read the files on their own: one that is slow or leaves
// disturbs neither the writer nor another reader. A reader that is overtaken by
// rotation gets a Gap.
//
// One process may have a Log open for writing. The package implements instance.Logs and
// imports no other adapter.
package logstore
