// Package process runs the commands of an agent so that nothing of them outlives what
// they were run for.
//
// A command is the leader of a process group, and carries a Mark in its environment that
// all its descendants inherit. End kills the group, and on Linux everything that has the
// mark, wherever it has gone: a program that makes itself a daemon is found too.
package process
