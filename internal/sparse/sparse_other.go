//go:build !linux

package sparse

import (
	"errors"
	"io"
	"os"
)

// clone is left to the file system's own commands on other systems.
func clone(_, _ *os.File) bool { return false }

// copyExtents copies what is not zero, in pieces of one block.
func copyExtents(out, in *os.File, _ int64) error {
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	for pos := int64(0); ; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != string(zero[:n]) {
			if _, err := out.WriteAt(buf[:n], pos); err != nil {
				return err
			}
		}
		pos += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
