// Package process keeps the processes the host started: their output logs, their
// input, their ends.
//
// A Table holds one Exec for every process that the host may still ask for: those
// that run, and those whose exit status it has not acknowledged. How a process
// comes to be is a Launcher's matter: package guest has the one of a real VM,
// package guesttest one with scripted programs.
//
// Three goroutines at most serve a process (two outputs, one input) and one waits
// for its end; Table.Close waits for them all.
package process
