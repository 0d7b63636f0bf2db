package rootfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// punch makes a hole in a file. A file system that cannot keeps the blocks.
func punch(f *os.File, offset, length int64) {
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
}
