package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
)

// rootForm changes whenever the same layers become another file system than before.
const rootForm = "aegisvm root 1"

// rootDigest is what the root of these layers is known by. The working folder is made
// in it, as other runtimes make it, and so belongs to it.
func rootDigest(diffIDs []string, workdir string) string {
	return digestOf([]byte(strings.Join(append([]string{rootForm, workdir}, diffIDs...), "\n")))
}

// layer is a part of an image.
type layer struct {
	diffID string // digest of its content, uncompressed
	// open returns it as it is kept, compressed or not.
	open func(context.Context) (io.ReadCloser, error)
}

// buildRoot makes the root of these layers, if it is not here yet. The caller has
// pinned it.
func (s *Store) buildRoot(ctx context.Context, layers []layer, workdir string, done func(layer)) error {
	var ids []string
	for _, l := range layers {
		ids = append(ids, l.diffID)
	}
	digest := rootDigest(ids, workdir)
	return s.flights.do(ctx, "root "+digest, func(ctx context.Context) error {
		if _, err := rootfs.LoadRoot(s.home, digest); err == nil {
			return nil
		}
		f, err := s.newRoot()
		if err != nil {
			return err
		}
		defer f.discard()
		for _, l := range layers {
			if err := addLayer(ctx, f.Builder, l); err != nil {
				return err
			}
			done(l)
		}
		return f.keep(digest, workdir)
	})
}

// addLayer lays one layer on an image in the making.
func addLayer(ctx context.Context, b *rootfs.Builder, l layer) error {
	rc, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = rc.Close() }() // only read
	got, err := stream(rc, func(r io.Reader) error { return b.AddLayer(ctx, r) })
	if err != nil {
		return fmt.Errorf("layer %s: %w", short(l.diffID), err)
	}
	if got != l.diffID {
		return fault.New(fault.Invalid, "layer %s has the content %s instead", l.diffID, got).By(fault.Image).
			WithHint("the image is damaged: get it anew")
	}
	return nil
}

// stream passes the content of an archive, compressed or not, to use, and returns its
// digest.
func stream(rc io.ReadCloser, use func(io.Reader) error) (digest string, err error) {
	content, err := decompress(rc)
	if err != nil {
		return "", err
	}
	a := readAhead(content, maxContent)
	if err = use(a); err == nil {
		err = drain(a)
	}
	if err != nil {
		_ = rc.Close() // frees who reads from it
	}
	digest = a.close()
	_ = content.Close() // only read
	return digest, err
}

// maxContent bounds the content of a layer: its files and what stands between them.
const maxContent = 80 * size.GiB

func short(digest string) string {
	h := hexOf(digest)
	return h[:min(len(h), 12)]
}

// root is a root file system in the making.
type root struct {
	*rootfs.Builder

	store *Store
	f     *os.File
}

// newRoot begins a root, within what there is room for.
func (s *Store) newRoot() (*root, error) {
	limits := rootfs.DefaultLimits()
	room, err := s.room()
	if err != nil {
		return nil, err
	}
	limits.Written = min(limits.Written, room)
	f, err := os.CreateTemp(rootfs.Roots(s.home), atomicfile.Prefix+"*")
	if err != nil {
		return nil, rootfs.DiskFull(err)
	}
	r := &root{store: s, f: f}
	if r.Builder, err = rootfs.NewBuilderWithin(f, limits); err != nil {
		r.discard()
		return nil, rootfs.DiskFull(err)
	}
	return r, nil
}

// discard removes what keep has not kept.
func (r *root) discard() {
	_ = r.f.Close()           // it is closed, or nobody wants it
	_ = os.Remove(r.f.Name()) // gone already when it was kept
}

// keep finishes the root and puts it where it is known by its digest.
func (r *root) keep(digest, workdir string) error {
	path, err := rootfs.RootPath(r.store.home, digest)
	if err != nil {
		return err
	}
	if workdir != "" {
		// One that cannot be made is found out by whoever starts a program in it.
		_ = r.MakeDir(workdir)
	}
	if err := r.Finish(); err != nil {
		return rootfs.DiskFull(err)
	}
	if err := errors.Join(r.f.Chmod(0o400), r.f.Sync(), r.f.Close()); err != nil {
		return rootfs.DiskFull(err)
	}
	return rootfs.DiskFull(atomicfile.Rename(r.f.Name(), path))
}

// minFree is what stays free on the host's disk for the machines.
const minFree = 512 * size.MiB

// room returns how much more images may take.
func (s *Store) room() (size.Bytes, error) {
	free, err := rootfs.FreeSpace(s.dir)
	if err != nil {
		return 0, fmt.Errorf("measure free space: %w", err)
	}
	used, err := s.use()
	if err != nil {
		return 0, err
	}
	if left := s.quota - used; left <= 0 {
		return 0, fault.New(fault.Exhausted, "images take %v of the %v they may (image_quota)", used, s.quota).
			WithHint("remove what nobody needs: aegis image prune; or allow more: image_quota in config.toml")
	}
	if free -= minFree; free <= 0 {
		return 0, fault.New(fault.Exhausted, "the disk of %s is full", s.home).By(fault.Host).
			WithHint("free some space; images that nobody needs go with: aegis image prune")
	}
	return min(free, s.quota-used), nil
}

// use returns what images take on the disk. What is linked from elsewhere is counted
// there.
func (s *Store) use() (size.Bytes, error) {
	var total size.Bytes
	for _, dir := range []string{rootfs.Roots(s.home), filepath.Join(s.dir, "layers")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			fi, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return 0, err
			}
			total += rootfs.Occupied(fi)
		}
	}
	return total, nil
}
