package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// Import takes images from an archive or folder of this host: an OCI layout, what
// `docker save` writes, a root file system. name is what the image is to be called; ""
// leaves it to what the archive says, or to the name of the file.
func (s *Store) Import(ctx context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	if !filepath.IsAbs(path) {
		return nil, fault.New(fault.Invalid, "%q is not an absolute path", path).
			WithHint("the daemon works in another folder than you do")
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if fi.IsDir() {
		return s.importFolder(ctx, path, name, tell)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // only read
	if name == "" {
		name = nameOfFile(path)
		return s.importFile(ctx, f, "", name, path, tell)
	}
	return s.importFile(ctx, f, name, name, path, tell)
}

func unreadable(path string, err error) error {
	kind := fault.Invalid
	if errors.Is(err, os.ErrNotExist) {
		kind = fault.NotFound
	}
	return fault.Wrap(kind, err, "import %s", path).WithHint("the daemon reads it with your rights; is the path right?")
}

// ImportStream is Import of an archive that comes as a stream.
func (s *Store) ImportStream(ctx context.Context, r io.Reader, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	f, err := os.CreateTemp(s.path("spool"), atomicfile.Prefix+"*")
	if err != nil {
		return nil, rootfs.DiskFull(err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it was read, or is of no use
	defer func() { _ = f.Close() }()           // as above
	if err := s.spool(ctx, f, r); err != nil {
		return nil, err
	}
	return s.importFile(ctx, f, name, name, "a stream", tell)
}

// spool keeps a stream in a file, as far as there is room.
func (s *Store) spool(ctx context.Context, f *os.File, r io.Reader) error {
	room, err := s.room()
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(contextReader{ctx, r}, int64(room)))
	if err != nil {
		return rootfs.DiskFull(fmt.Errorf("keep the archive: %w", err))
	}
	if n == int64(room) {
		return fault.New(fault.Exhausted, "the archive takes more than the %v that there is room for", room).
			WithHint("remove what nobody needs: aegis image prune")
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // of one reading
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// importFile takes what is in an archive. name is what the caller wants; fallback is what
// a root file system is called otherwise.
func (s *Store) importFile(ctx context.Context, f *os.File, name, fallback, from string, tell func(api.ImageProgress)) ([]api.Image, error) {
	tell(api.ImageProgress{Status: "reading"})
	isPlain, err := isPlain(f)
	if err != nil {
		return nil, badArchive(from, err)
	}
	first, err := firstMember(f)
	if err != nil {
		return nil, badArchive(from, err)
	}
	if !imageMember.MatchString(first) {
		return s.importRoot(ctx, f, fallback, from, tell)
	}
	if !isPlain { // what is in it is needed in another order
		spooled, err := os.CreateTemp(s.path("spool"), atomicfile.Prefix+"*")
		if err != nil {
			return nil, rootfs.DiskFull(err)
		}
		defer func() { _ = os.Remove(spooled.Name()) }() // it was read
		defer func() { _ = spooled.Close() }()           // as above
		content, err := decompress(f)
		if err != nil {
			return nil, err
		}
		if err := s.spool(ctx, spooled, content); err != nil {
			return nil, badArchive(from, err)
		}
		f = spooled
	}
	files, err := indexArchive(ctx, f)
	if err != nil {
		return nil, badArchive(from, err)
	}
	return s.importFiles(ctx, files, name, from, tell)
}

func badArchive(from string, err error) error {
	if fault.KindOf(err) != fault.Internal {
		return fmt.Errorf("import %s: %w", from, err)
	}
	return fault.Wrap(fault.Invalid, err, "import %s: it is no archive that can be read", from).By(fault.Image).
		WithHint("an image is an OCI layout, what docker save writes, or a tar archive of a root file system")
}

// imageMember is what the members of archives of images are called, in all forms that
// there are. No root file system begins with one.
var imageMember = regexp.MustCompile(`^(\./)?(blobs(/.*)?|oci-layout|index\.json|manifest\.json|repositories|(sha256:)?[0-9a-f]{64}([./].*)?)$`)

// importRoot makes an image of a root file system.
func (s *Store) importRoot(ctx context.Context, r io.Reader, name, from string, tell func(api.ImageProgress)) ([]api.Image, error) {
	if name == "" {
		return nil, fault.New(fault.Invalid, "a root file system has no name of its own").
			WithHint("give it one, as in: aegis image import FILE mine:1")
	}
	ref, err := parseName(name)
	if err != nil {
		return nil, err
	}
	tell(api.ImageProgress{Status: "building"})
	root, err := s.newRoot()
	if err != nil {
		return nil, err
	}
	defer root.discard()
	diffID, err := stream(io.NopCloser(r), func(r io.Reader) error { return root.AddTar(ctx, r) })
	if err != nil {
		return nil, badArchive(from, err)
	}
	record, err := s.keepRoot(root, []string{diffID}, v1.Config{}, ref.Name(), from)
	if err != nil {
		return nil, err
	}
	image, err := s.Inspect(ctx, record.ID)
	s.tidy(ctx)
	return []api.Image{image}, err
}

// keepRoot makes an image of a root that was just made of these layers, and names it.
func (s *Store) keepRoot(root *root, diffIDs []string, c v1.Config, name, from string) (record, error) {
	config, err := describeRoot(diffIDs, c, time.Now().UTC().Truncate(time.Second))
	if err != nil {
		return record{}, err
	}
	r := record{
		ID: digestOf(config), Root: rootDigest(diffIDs, c.WorkingDir), Stored: time.Now().UTC(), From: from, Config: config,
	}
	defer s.pins.pin(r.ID)()
	defer s.pins.pin(r.Root)()
	if err := root.keep(r.Root, c.WorkingDir); err != nil {
		return record{}, err
	}
	return r, s.add(r, name, "")
}

// notInNames is what the name of an image cannot have.
var notInNames = regexp.MustCompile(`[^a-z0-9._-]+`)

// nameOfFile makes a name for an image of that of its file.
func nameOfFile(path string) string {
	base := strings.ToLower(filepath.Base(path))
	for _, ext := range []string{".gz", ".tgz", ".zst", ".zstd", ".xz", ".txz", ".bz2", ".tar"} {
		base = strings.TrimSuffix(base, ext)
	}
	return strings.Trim(notInNames.ReplaceAllString(base, "-"), "._-")
}

// isPlain reports whether an archive is not compressed.
func isPlain(f *os.File) (bool, error) {
	head := make([]byte, headSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return formOf(head[:n]) == plain, nil
}
