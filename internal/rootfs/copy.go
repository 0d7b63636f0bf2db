package rootfs

import (
	"errors"
	"fmt"
	"os"

	"github.com/xfeldman/aegisvm/internal/sparse"
)

// CopySparse copies the file src to dst, which does not exist, without filling
// its holes: as a copy-on-write clone where the file system has them, else extent
// by extent. It is not synced. After an error there is nothing at dst.
func CopySparse(src, dst string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			_ = os.Remove(dst) // the copy's error tells more
			err = fmt.Errorf("copy %s to %s: %w", src, dst, err)
		}
	}()
	return sparse.Copy(out, in)
}
