package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// ownFiles are those that the guest's PID 1 writes for one machine: they are not what
// somebody has done to an image.
var ownFiles = []string{"etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf"}

// Commit implements instance.Images.
func (s *Store) Commit(ctx context.Context, base instance.Base, name string, changes io.Reader) (instance.Base, error) {
	ref, err := parseName(name)
	if err != nil {
		return instance.Base{}, err
	}
	old, release, err := s.hold(base.ID)
	if err != nil {
		return instance.Base{}, err
	}
	defer release()
	root, err := s.newRoot()
	if err != nil {
		return instance.Base{}, err
	}
	defer root.discard()
	if err := s.addBase(ctx, root, old.Root); err != nil {
		return instance.Base{}, err
	}
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.CloseWithError(strip(w, changes)) }) // never fails; nil is the end
	diffID, err := stream(r, func(r io.Reader) error { return root.AddLayer(ctx, r) })
	_ = r.Close()
	wg.Wait()
	if err != nil {
		return instance.Base{}, fmt.Errorf("commit to %s: %w", name, err)
	}
	c := old.config()
	made, err := s.keepRoot(root, append(diffIDs(&c), diffID), c.Config, ref.Name(), "commit")
	if err != nil {
		return instance.Base{}, err
	}
	s.tidy(ctx)
	return baseOf(made), nil
}

// addBase lays a root that is here under one in the making.
func (s *Store) addBase(ctx context.Context, to *root, digest string) error {
	path, err := rootfs.RootPath(s.home, digest)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	return to.AddImage(ctx, f)
}

// strip copies a layer but for what belongs to one machine.
func strip(w io.Writer, layer io.Reader) error {
	in, out := tar.NewReader(layer), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(out.Close(), drain(layer))
		}
		if err != nil {
			return fmt.Errorf("read the changes: %w", err)
		}
		if slices.Contains(ownFiles, strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), "/")) {
			continue
		}
		h.Format = tar.FormatPAX
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("pass on the change to %s: %w", h.Name, err)
		}
		if _, err := io.Copy(out, in); err != nil { //nolint:gosec // what it becomes is bounded where it is written
			return fmt.Errorf("pass on the change to %s: %w", h.Name, err)
		}
	}
}
