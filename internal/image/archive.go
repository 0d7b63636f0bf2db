package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// files is where the parts of an image lie: an archive or a folder.
type files interface {
	// open returns a file; one that is not there is fs.ErrNotExist.
	open(name string) (io.ReadCloser, error)
}

// firstMember returns the name of the first member of an archive, compressed or not. The
// file is at its start afterwards.
func firstMember(f *os.File) (string, error) {
	content, err := decompress(f)
	if err != nil {
		return "", err
	}
	h, err := tar.NewReader(content).Next()
	_ = content.Close() // only read
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if _, seekErr := f.Seek(0, io.SeekStart); err == nil {
		err = seekErr
	}
	if err != nil {
		return "", err
	}
	return h.Name, nil
}

// archive is a tar file that is not compressed, and where its members are.
type archive struct {
	f       *os.File
	members map[string]section
	links   map[string]string // to other members: old versions of Docker share layers so
}

type section struct{ at, size int64 }

// maxMembers bounds the members of an archive of images: each layer has three at most.
const maxMembers = 64 << 10

// indexArchive finds the members of an archive. It reads no data.
func indexArchive(ctx context.Context, f *os.File) (*archive, error) {
	a := &archive{f: f, members: map[string]section{}, links: map[string]string{}}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	in := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		if n == maxMembers {
			return nil, fault.New(fault.Invalid, "bad archive: more than %d members", maxMembers).By(fault.Image)
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.members[name] = section{at, h.Size}
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname) //nolint:gosec // a key of members, no path of the host
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (a *archive) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 8 {
		to, ok := a.links[name]
		if !ok {
			break
		}
		name = to
	}
	m, ok := a.members[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(a.f, m.at, m.size)), nil
}

// folder is a folder of the host. Nothing outside of it is read.
type folder struct{ *os.Root }

func (d folder) open(name string) (io.ReadCloser, error) {
	f, err := d.Open(path.Clean(name))
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "bad image: %s is no file", name).By(fault.Image)
	}
	if err != nil {
		_ = f.Close() // the first error tells more
		return nil, err
	}
	return f, nil
}

// readDocument reads a small file of an image.
func readDocument(from files, name string) ([]byte, error) {
	r, err := from.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err == nil && len(data) > maxDocument {
		err = badImage("%s is too large", name)
	}
	return data, err
}
