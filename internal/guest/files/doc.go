// Package files is the guest's end of copies: it reads and writes files for the host,
// as tar streams in frames (guestproto.StreamCopy). What stands in the streams and
// where they land is package tree's matter; here are the frames, the errors and the
// end of a copy that the host gives up.
//
// A copy runs as root. It needs no tool of the image. It has one buffer in each
// direction, whatever the size of what is copied.
package files
