package image

import (
	"encoding/json"
	"os"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// fromSetUp is the origin of the image that set-up made.
const fromSetUp = "aegis setup"

// adoptBase makes the image of set-up one like the others, and returns it. Set-up may
// have replaced it since: then it is another image, and instances keep the old one.
func (s *Store) adoptBase() (record, error) {
	img, err := rootfs.LoadImage(s.home, rootfs.BaseImage)
	if err != nil {
		return record{}, err
	}
	config, err := describeBase(img)
	if err != nil {
		return record{}, err
	}
	r := record{ID: digestOf(config), Root: img.Digest, Stored: time.Now().UTC(), From: fromSetUp, Config: config}
	defer s.pins.pin(r.ID)()
	defer s.pins.pin(r.Root)()
	if err := s.adoptRoot(img); err != nil {
		return record{}, err
	}
	if old, err := s.loadRecord(r.ID); err == nil {
		return old, nil
	}
	return r, s.add(r, "", "")
}

func describeBase(img rootfs.Image) (json.RawMessage, error) {
	return describeRoot([]string{img.Digest}, v1.Config{Env: img.Env}, img.Created)
}

// baseID returns the id of the image of set-up.
func (s *Store) baseID() (string, error) {
	img, err := rootfs.LoadImage(s.home, rootfs.BaseImage)
	if err != nil {
		return "", err
	}
	config, err := describeBase(img)
	return digestOf(config), err
}

// adoptRoot links set-up's file to where roots are. One that was there is replaced if it
// is another file: set-up has mended what it made.
func (s *Store) adoptRoot(img rootfs.Image) error {
	path, err := rootfs.RootPath(s.home, img.Digest)
	if err != nil {
		return err
	}
	_, missing := rootfs.LoadRoot(s.home, img.Digest)
	if missing == nil && sameFile(img.Path, path) {
		return nil
	}
	part := path + ".part"
	_ = os.Remove(part) // of a daemon that was killed
	if err := os.Link(img.Path, part); err != nil {
		if missing == nil { // a file system without links, and it was copied before
			return nil
		}
		if err := rootfs.CopySparse(img.Path, part); err != nil {
			return rootfs.DiskFull(err)
		}
	}
	return rootfs.DiskFull(atomicfile.Rename(part, path))
}

func sameFile(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

// describeRoot returns the description of an image that has none of its own.
func describeRoot(diffIDs []string, c v1.Config, created time.Time) (json.RawMessage, error) {
	file := v1.ConfigFile{
		Architecture: runtime.GOARCH, OS: guestOS, Created: v1.Time{Time: created}, Config: c,
		RootFS: v1.RootFS{Type: "layers"},
	}
	for _, id := range diffIDs {
		h, err := v1.NewHash(id)
		if err != nil {
			return nil, err
		}
		file.RootFS.DiffIDs = append(file.RootFS.DiffIDs, h)
	}
	return json.Marshal(file)
}

// guestOS is what runs in machines.
const guestOS = "linux"
