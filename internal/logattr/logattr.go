// Package logattr is the vocabulary of AegisVM's logs: every attribute key, once.
//
// The package is a leaf: it imports nothing of AegisVM.
package logattr

import (
	"log/slog"
	"time"
)

// Err is the error that a line is about.
func Err(err error) slog.Attr { return slog.String("error", err.Error()) }

// Instance is the id of an instance.
func Instance[S ~string](id S) slog.Attr { return slog.String("instance", string(id)) }

// Handle is the name of an instance.
func Handle(h string) slog.Attr { return slog.String("handle", h) }

// From is the state before a change.
func From(s string) slog.Attr { return slog.String("from", s) }

// To is the state after a change.
func To(s string) slog.Attr { return slog.String("to", s) }

// Why is the event that caused a change.
func Why(s string) slog.Attr { return slog.String("why", s) }

// Took is the time since the change before.
func Took(d time.Duration) slog.Attr { return slog.Duration("took", d) }
