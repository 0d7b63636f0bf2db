// Package session keeps conversations on disk: one file each, in the workspace, to which
// records are only ever appended.
//
// A record is a line of JSON: a message, or that a message was answered. The record of a
// user's message has the number (Seq) that its frame had, so that what is known of frames
// and what is known of the conversation cannot differ: a frame is taken when its record
// is on disk.
//
// A process that is killed while it writes leaves a line without an end. It is cut off
// when the file is opened next; nobody was told that it had been written. A line that
// cannot be read is left out and the others stay. What is then missing in a conversation
// is for package history to repair.
//
// A Session holds in memory what may still be sent to a model, and reads no more than
// that: see Window. One process at a time has a session open, and one goroutine at a time
// calls it.
package session
