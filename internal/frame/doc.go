// Package frame is the framing of attach streams: the binary-clean
// conversation with one process, between client and daemon (over an upgraded
// HTTP connection) and between daemon and guest (over a multiplexed stream).
//
// A frame is `type u8, length u32 big-endian, payload`. The same frames are the
// records of a process's output log, so that "resume at offset n" is a copy of
// bytes.
//
// The package is a leaf: it imports nothing of AegisVM. It is built into PID 1.
package frame
