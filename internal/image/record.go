package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// record is what is known of an image.
type record struct {
	ID     string          `json:"id"`   // digest of Config
	Root   string          `json:"root"` // of its root file system, see rootfs.RootPath
	Stored time.Time       `json:"stored"`
	From   string          `json:"from"` // where it came from, for people
	Config json.RawMessage `json:"config"`
	Layers []string        `json:"layers,omitempty"` // digests in the cache
}

// config decodes the image's description.
func (r record) config() v1.ConfigFile {
	var c v1.ConfigFile
	_ = json.Unmarshal(r.Config, &c) // it was decoded before it was stored
	return c
}

// tag is a name and what it means.
type tag struct {
	Name     string    `json:"name"` // normalised
	ID       string    `json:"id"`
	Manifest string    `json:"manifest,omitempty"` // digest that the registry has under the name
	Updated  time.Time `json:"updated"`
}

// digestOf returns "sha256:" and the digest of data.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hexOf returns what stands behind "sha256:".
func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

func (s *Store) recordFile(id string) string {
	return filepath.Join(s.dir, "records", hexOf(id)+".json")
}

func (s *Store) tagFile(name string) string {
	return filepath.Join(s.dir, "tags", hexOf(digestOf([]byte(name)))+".json")
}

// loadRecord returns an image, or an error that wraps fs.ErrNotExist.
func (s *Store) loadRecord(id string) (record, error) {
	var r record
	if !rootfs.IsDigest(id) {
		return r, fmt.Errorf("%q: %w", id, fs.ErrNotExist)
	}
	return r, loadJSON(s.recordFile(id), &r)
}

func (s *Store) loadTag(name string) (tag, error) {
	var t tag
	return t, loadJSON(s.tagFile(name), &t)
}

func (s *Store) records() ([]record, error) { return loadAll[record](filepath.Join(s.dir, "records")) }
func (s *Store) tags() ([]tag, error)       { return loadAll[tag](filepath.Join(s.dir, "tags")) }

func (s *Store) saveRecord(r record) error { return saveJSON(s.recordFile(r.ID), r) }
func (s *Store) saveTag(t tag) error       { return saveJSON(s.tagFile(t.Name), t) }

func loadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func saveJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return rootfs.DiskFull(atomicfile.Write(path, append(data, '\n'), 0o600))
}

// loadAll reads all files of a folder. One that has gone meanwhile was not there.
func loadAll[T any](dir string) ([]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var v T
		switch err := loadJSON(filepath.Join(dir, e.Name()), &v); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			all = append(all, v)
		}
	}
	return all, nil
}
