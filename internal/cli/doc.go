// Package cli is the command `aegis`.
//
// A command is one file: a struct of its options, a constructor that describes it,
// and a run function. All of them work in an app, which has the streams, the
// environment and the home; none of them exits or prints errors. An error that
// reaches Main is printed there, once, and becomes the exit status by one table
// (errors.go).
//
// stdout is data, stderr is talk. The CLI knows the daemon by its client only.
package cli
