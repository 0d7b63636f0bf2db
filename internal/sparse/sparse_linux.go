package sparse

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// clone makes out share in's blocks. False means that the file system cannot.
func clone(out, in *os.File) bool {
	return unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil
}

// copyExtents copies the parts of in that are not holes.
func copyExtents(out, in *os.File, length int64) error {
	for pos := int64(0); pos < length; {
		start, err := in.Seek(pos, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := in.Seek(start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
		pos = end
	}
	return nil
}
