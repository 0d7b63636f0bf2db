package kernel

import (
	"fmt"
	"io"
)

// cpioWriter writes the "newc" format of cpio, which the kernel unpacks: see
// Documentation/driver-api/early-userspace/buffer-format.rst. Files get the time
// 0, the owner 0 and numbers in order, so that equal input is equal output. The
// first error stays and is returned by close.
type cpioWriter struct {
	w   io.Writer
	pos int64
	ino int
	err error
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioChar = 0o020000
)

func (c *cpioWriter) dir(name string) { c.entry(name, cpioDir|0o755, 0, 0, nil) }

func (c *cpioWriter) file(name string, perm int, data []byte) {
	c.entry(name, cpioFile|perm, 0, 0, data)
}

func (c *cpioWriter) char(name string, perm, major, minor int) {
	c.entry(name, cpioChar|perm, major, minor, nil)
}

// close writes the trailer and returns the first error of all calls.
func (c *cpioWriter) close() error {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	c.align(512)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, major, minor int, data []byte) {
	if int64(len(data)) > 1<<32-1 && c.err == nil {
		c.err = fmt.Errorf("%s is too large for an initramfs", name)
	}
	c.ino++
	links := 1
	if mode&cpioDir != 0 {
		links = 2
	}
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
	// rdevmajor, rdevminor, namesize with its NUL, check
	c.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name))
	c.align(4)
	c.write(data)
	c.align(4)
}

func (c *cpioWriter) align(to int64) {
	if rest := c.pos % to; rest != 0 {
		c.write(make([]byte, to-rest))
	}
}

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.pos += int64(n)
	c.err = err
}
