package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Error is a refusal: the stream or the paths are wrong, and will stay wrong.
type Error struct{ Msg string }

// Error implements error.
func (e *Error) Error() string { return e.Msg }

func refuse(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// at says of what err tells, in the words of the stream: the paths that the os
// package knows are those of single steps.
func at(name string, err error) error {
	for {
		var inner error
		switch e := err.(type) { //nolint:errorlint // peels one layer at a time
		case *fs.PathError:
			inner = e.Err
		case *os.LinkError:
			inner = e.Err
		case *os.SyscallError:
			inner = e.Err
		default:
			return fmt.Errorf("%q: %w", name, err)
		}
		err = inner
	}
}

const (
	// bufferSize is how much of a file is moved at a time.
	bufferSize = 64 << 10
	// maxDepth bounds the folders within folders: each takes descriptors.
	maxDepth = 1000
	// maxName bounds the length of a path in the stream.
	maxName = 64 << 10
)

// noter passes notes on, if anybody listens.
type noter func(string)

func (n noter) say(format string, args ...any) {
	if n != nil {
		n(fmt.Sprintf(format, args...))
	}
}

// statOf returns what the kernel says of a file.
func statOf(fi fs.FileInfo) (*syscall.Stat_t, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return st, ok
}

// slashed reports whether a path asks for a folder by how it ends.
func slashed(path string) bool { return strings.HasSuffix(path, "/") || contents(path) }

// contents reports whether a path means what is in a folder rather than the folder.
func contents(path string) bool {
	switch last := path[strings.LastIndexByte(path, '/')+1:]; last {
	case ".", "..":
		return true
	case "":
		return strings.Trim(path, "/") == "" // the root
	}
	return false
}

// isMissing reports whether nothing is there.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist)
}
