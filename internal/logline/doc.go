// Package logline turns what processes write into lines as the APIs show them: those of the
// log, and those of a command as it runs. The edges that answer people and guests share it.
//
// It knows the core's types and the wire's, and no HTTP.
package logline
