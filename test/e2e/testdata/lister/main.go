// Command lister tells, in a VM whose image has nothing else, what the kernel says of
// files: one line of JSON for each below the folders it is given. Without any it tells
// what it was started with.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

type entry struct {
	Path   string            `json:"path"`
	Mode   uint32            `json:"mode"`
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Links  uint64            `json:"links"`
	Size   int64             `json:"size"`
	Device uint64            `json:"device,omitempty"`
	Sec    int64             `json:"sec"`
	Nsec   int64             `json:"nsec"`
	Target string            `json:"target,omitempty"`
	Sum    string            `json:"sum,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

func main() {
	out := json.NewEncoder(os.Stdout)
	if len(os.Args) == 1 {
		dir, _ := os.Getwd()
		env := os.Environ()
		slices.Sort(env)
		_ = out.Encode(map[string]any{"dir": dir, "uid": os.Getuid(), "gid": os.Getgid(), "env": env, "args": os.Args[0]})
		return
	}
	for _, root := range os.Args[1:] {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			e, err := look(path)
			if err != nil {
				return err
			}
			return out.Encode(e)
		})
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
	}
}

func look(path string) (entry, error) {
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		return entry{}, err
	}
	e := entry{
		Path: path, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Links: uint64(st.Nlink), Size: st.Size, Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec,
		Xattrs: xattrs(path),
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFCHR, syscall.S_IFBLK:
		e.Device = st.Rdev
	case syscall.S_IFDIR:
		e.Size = 0 // differs between file systems
	case syscall.S_IFLNK:
		target, err := os.Readlink(path)
		e.Target = target
		return e, err
	case syscall.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return e, err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return e, err
		}
		e.Sum = hex.EncodeToString(sum.Sum(nil))
	}
	return e, nil
}

// xattrs reads attributes of files and folders; this Go has no call for those of links.
func xattrs(path string) map[string]string {
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&fs.ModeSymlink != 0 {
		return nil
	}
	buf := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, buf)
	if err != nil || n == 0 {
		return nil
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		if n, err := syscall.Getxattr(path, name, value); err == nil {
			out[name] = hex.EncodeToString(value[:n])
		}
	}
	return out
}
