package rootfs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Roots is the folder of a home's root file systems that are known by a digest.
func Roots(home paths.Home) string { return filepath.Join(home.Images(), "roots") }

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// IsDigest reports whether s is "sha256:" and 64 hex digits.
func IsDigest(s string) bool { return digestForm.MatchString(s) }

// RootPath is where a home keeps the root file system of that digest, an EROFS file. It
// names all that the file was made of; it need not be the digest of the file.
func RootPath(home paths.Home, digest string) (string, error) {
	if !IsDigest(digest) {
		return "", fmt.Errorf("%q is not a digest: %w", digest, fs.ErrInvalid)
	}
	return filepath.Join(Roots(home), digest[len("sha256:"):]+".erofs"), nil
}

// LoadRoot returns the root file system of that digest. Name and Path are set, Digest
// and Size.
func LoadRoot(home paths.Home, digest string) (Image, error) {
	path, err := RootPath(home, digest)
	if err != nil {
		return Image{}, err
	}
	fi, err := os.Stat(path)
	if err != nil {
		return Image{}, fault.Wrap(fault.NotFound, err, "the image %s is not here any more", digest).By(fault.Host).
			WithHint("pull or import it again; see: aegis image list")
	}
	return Image{Name: digest, Digest: digest, Size: size.Bytes(fi.Size()), Path: path}, nil
}
