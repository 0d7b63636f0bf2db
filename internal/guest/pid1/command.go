//go:build linux

package pid1

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment completes what the host asked for with what every program expects.
func environment(req guestproto.Spawn, a account) []string {
	env := append([]string(nil), req.Env...)
	set := func(key, value string) {
		if _, ok := getenv(env, key); !ok && value != "" {
			env = append(env, key+"="+value)
		}
	}
	set("PATH", defaultPath)
	path, _ := getenv(env, "PATH")
	if with := withTools(path); with != path {
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })
		env = append(env, "PATH="+with)
	}
	set("HOME", a.home)
	set("USER", a.name)
	set("LOGNAME", a.name)
	if req.TTY != nil {
		set("TERM", "xterm")
	}
	return env
}

// getenv returns the value of a variable; the last one counts.
func getenv(env []string, key string) (value string, ok bool) {
	for _, e := range env {
		if v, is := strings.CutPrefix(e, key+"="); is {
			value, ok = v, true
		}
	}
	return value, ok
}

// lookPath finds the file of a command as a shell in dir does.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return path, executable(path, name)
	}
	pathVar, _ := getenv(env, "PATH")
	var denied error
	for _, folder := range filepath.SplitList(pathVar) {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		path := filepath.Join(folder, name)
		err := executable(path, name)
		if err == nil {
			return path, nil
		}
		if e, ok := errors.AsType[*guestproto.Error](err); ok && e.Code == guestproto.CodeNotExecutable && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &guestproto.Error{Code: guestproto.CodeNoCommand, Msg: name + ": command not found"}
}

func executable(path, name string) error {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return &guestproto.Error{Code: guestproto.CodeNoCommand, Msg: name + ": no such file"}
	case err != nil:
		return &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: fmt.Sprintf("%s: %v", name, errors.Unwrap(err))}
	case fi.IsDir():
		return &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: name + ": is a directory"}
	case fi.Mode().Perm()&0o111 == 0:
		return &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: name + ": permission denied"}
	}
	return nil
}

func checkWorkdir(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: "no folder " + dir + " in the VM to work in"}
	case err != nil:
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf("folder %s in the VM: %v", dir, errors.Unwrap(err))}
	case !fi.IsDir():
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: dir + " in the VM is not a folder"}
	}
	return nil
}

// execError says what the kernel made of a command that exists.
func execError(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		return &guestproto.Error{Code: guestproto.CodeNoCommand, Msg: name + ": its interpreter is not in the VM"}
	case errors.Is(err, syscall.ENOEXEC):
		return &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: name + ": not a program for this machine"}
	case errors.Is(err, syscall.E2BIG):
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: name + ": arguments and environment are too long"}
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.ENOSPC):
		return &guestproto.Error{Code: guestproto.CodeExhausted, Msg: fmt.Sprintf("%s: %v", name, err)}
	}
	return &guestproto.Error{Code: guestproto.CodeNotExecutable, Msg: fmt.Sprintf("%s: %v", name, err)}
}
