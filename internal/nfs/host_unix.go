package nfs

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// again repeats a call that a signal has interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// again1 is again for calls that return something.
func again1[T any](call func() (T, error)) (T, error) {
	for {
		if v, err := call(); !errors.Is(err, unix.EINTR) {
			return v, err
		}
	}
}

// isErr reports whether err is one of codes.
func isErr(err error, codes ...unix.Errno) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	return slices.Contains(codes, errno)
}

// maxPath is how much of a path one call takes; longer ones are resolved in pieces.
const maxPath = 3900

// descend resolves a path of plain names below p. It follows no link and crosses no
// mount, wherever the path leads. An empty path is p itself.
func (p place) descend(path string, step func(place, string) (place, error)) (place, error) {
	here, owned := p, false
	for _, piece := range pieces(path) {
		next, err := step(here, piece)
		if owned {
			here.close()
		}
		if err != nil {
			return nowhere, err
		}
		here, owned = next, true
	}
	return here, nil
}

// pieces cuts a path so that each part is short enough for one call.
func pieces(path string) []string {
	var out []string
	for len(path) > maxPath {
		cut := strings.LastIndexByte(path[:maxPath], '/')
		if cut <= 0 {
			break // a name is never that long
		}
		out = append(out, path[:cut])
		path = path[cut+1:]
	}
	return append(out, path)
}

// byName resolves a path one name after the other, for kernels that cannot confine a
// resolution by themselves. A folder on another device is a mount.
func byName(p place, path string) (place, error) {
	top, err := p.stat()
	if err != nil {
		return nowhere, err
	}
	here, owned := p, false
	for name := range strings.SplitSeq(path, "/") {
		next, err := here.enter(name)
		if owned {
			here.close()
		}
		if err != nil {
			return nowhere, err
		}
		here, owned = next, true
		st, err := here.stat()
		if err == nil && (st.crossing || st.kind == typeFolder && st.id.dev != top.id.dev) {
			err = unix.EXDEV
		}
		if err != nil {
			here.close()
			return nowhere, err
		}
	}
	return here, nil
}

// writeAt writes all of b.
func writeAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := again1(func() (int, error) { return unix.Pwrite(fd, b, off) })
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// readAt reads until b is full or the file ends.
func readAt(fd int, b []byte, off int64) (int, error) {
	total := 0
	for total < len(b) {
		n, err := again1(func() (int, error) { return unix.Pread(fd, b[total:], off+int64(total)) })
		if err != nil {
			return total, err
		}
		if n == 0 {
			break
		}
		total += n
	}
	return total, nil
}

// space is what FSSTAT tells of a file system.
type space struct {
	total, free, avail uint64 // bytes
	files, freeFiles   uint64
}

func (p place) space() (space, error) {
	var st unix.Statfs_t
	if err := again(func() error { return unix.Fstatfs(p.fd, &st) }); err != nil {
		return space{}, err
	}
	bs := uint64(st.Bsize) //nolint:gosec // positive
	return space{
		total: st.Blocks * bs, free: st.Bfree * bs, avail: st.Bavail * bs,
		files: st.Files, freeFiles: st.Ffree,
	}, nil
}
