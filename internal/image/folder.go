package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/tree"
)

// importFolder takes an OCI layout, the unpacked archive of `docker save`, or a root file
// system.
func (s *Store) importFolder(ctx context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	dir, err := os.OpenRoot(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = dir.Close() }() // only read
	tell(api.ImageProgress{Status: "reading"})
	for _, mark := range []string{"oci-layout", "manifest.json"} {
		if fi, err := dir.Lstat(mark); err == nil && fi.Mode().IsRegular() {
			return s.importFiles(ctx, folder{dir}, name, path, tell)
		}
	}
	if name == "" {
		name = nameOfFile(filepath.Clean(path))
	}
	return s.importTree(ctx, path, name, tell)
}

// importTree packs a folder and makes an image of that. What belongs to this user
// belongs to root in the image: nobody but root can make a folder that is otherwise.
func (s *Store) importTree(ctx context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	source, err := tree.OpenSource(path + "/.")
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = source.Close() }() // only read
	r, w := io.Pipe()
	var wg sync.WaitGroup
	var packErr error
	wg.Go(func() {
		packErr = source.PackAll(w, tree.PackOptions{Squash: os.Getuid() != 0})
		_ = w.CloseWithError(packErr) // never fails; nil is the end
	})
	images, err := s.importRoot(ctx, r, name, path, tell)
	_ = r.Close() // ends the packing, if it has not ended
	wg.Wait()
	if packErr != nil && !errors.Is(packErr, io.ErrClosedPipe) {
		return nil, fault.Wrap(fault.Invalid, packErr, "import %s", path).
			WithHint("all of it must be readable by you; make an archive of it as root: tar --xattrs -C %s -cf root.tar .", path)
	}
	return images, err
}
