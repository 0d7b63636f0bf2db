// Package logattr is the vocabulary of AegisVM's logs: every attribute key, once.
//
// The package is a leaf: it imports nothing of AegisVM.
package logattr

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// Err is the error that a line is about.
func Err(err error) slog.Attr { return slog.String("error", err.Error()) }

// Instance is the id of an instance.
func Instance[S ~string](id S) slog.Attr { return slog.String("instance", string(id)) }

// Handle is the name of an instance.
func Handle(h string) slog.Attr { return slog.String("handle", h) }

// Template is the name of a template.
func Template(name string) slog.Attr { return slog.String("template", name) }

// From is the state before a change.
func From(s string) slog.Attr { return slog.String("from", s) }

// To is the state after a change.
func To(s string) slog.Attr { return slog.String("to", s) }

// Why is the event that caused a change.
func Why(s string) slog.Attr { return slog.String("why", s) }

// Took is the time since the change before.
func Took(d time.Duration) slog.Attr { return slog.Duration("took", d) }

// Request is the method and path of an API call.
func Request(method, path string) slog.Attr { return slog.String("request", method+" "+path) }

// Panic is the value of a panic and the stack of the goroutine that calls Panic,
// which is the one that panicked when it does so in a deferred function.
func Panic(value any) slog.Attr {
	return slog.String("panic", fmt.Sprintf("%v\n%s", value, debug.Stack()))
}

// Version is the build of a program.
func Version(v string) slog.Attr { return slog.String("version", v) }

// Console is what a guest wrote to its console.
func Console(text string) slog.Attr { return slog.String("console", text) }

// PID is a process of the host.
func PID(pid int) slog.Attr { return slog.Int("pid", pid) }

// Driver is the name of a VMM driver.
func Driver(name string) slog.Attr { return slog.String("driver", name) }

// Accel is what runs a guest's instructions.
func Accel(name string) slog.Attr { return slog.String("accel", name) }

// Part is a part of the daemon.
func Part(name string) slog.Attr { return slog.String("part", name) }

// Image is the name or digest of an image or a part of one.
func Image(name string) slog.Attr { return slog.String("image", name) }

// Parent is the id of the instance that started another.
func Parent[S ~string](id S) slog.Attr { return slog.String("parent", string(id)) }

// Schedule is the id of a schedule.
func Schedule[T ~string](id T) slog.Attr { return slog.String("schedule", string(id)) }

// Session is the id of a conversation with an agent.
func Session(id string) slog.Attr { return slog.String("session", id) }

// Channel is where conversations with an agent are held.
func Channel(name string) slog.Attr { return slog.String("channel", name) }

// Chat is a chat of a messaging service.
func Chat(id int64) slog.Attr { return slog.Int64("chat", id) }

// Hint is what the reader of a line can do.
func Hint(text string) slog.Attr { return slog.String("hint", text) }
