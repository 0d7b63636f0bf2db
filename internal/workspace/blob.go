package workspace

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// BlobDir is where blobs are, in the workspace.
const BlobDir = ".aegis/blobs"

// picture is a format of pictures: how its files begin.
type picture struct {
	mediaType, ext string
	matches        func(b []byte) bool
}

func prefix(s string) func([]byte) bool {
	return func(b []byte) bool { return bytes.HasPrefix(b, []byte(s)) }
}

var pictures = []picture{
	{"image/png", ".png", prefix("\x89PNG\r\n\x1a\n")},
	{"image/jpeg", ".jpg", prefix("\xff\xd8\xff")},
	{"image/gif", ".gif", func(b []byte) bool { return prefix("GIF87a")(b) || prefix("GIF89a")(b) }},
	{"image/webp", ".webp", func(b []byte) bool { return len(b) >= 12 && prefix("RIFF")(b) && string(b[8:12]) == "WEBP" }},
}

// PutBlob keeps a picture of at most MaxFile bytes. What it is is told by its contents.
// The same picture is kept once.
func (f *Files) PutBlob(r io.Reader) (instance.Blob, error) {
	if err := f.writable(); err != nil {
		return instance.Blob{}, err
	}
	b, err := limited(r, "the picture", MaxFile)
	if err != nil {
		return instance.Blob{}, err
	}
	for _, p := range pictures {
		if !p.matches(b) {
			continue
		}
		sum := sha256.Sum256(b)
		blob := instance.Blob{Blob: hex.EncodeToString(sum[:]) + p.ext, MediaType: p.mediaType, Size: int64(len(b))}
		if err := f.put(path.Join(BlobDir, blob.Blob), b); err != nil {
			return instance.Blob{}, fmt.Errorf("keep a picture: %w", err)
		}
		return blob, nil
	}
	return instance.Blob{}, fault.New(fault.Invalid, "this is no picture that can be kept").WithHint("send PNG, JPEG, GIF or WebP")
}

// put makes a whole file at name, whatever stands there: a guest may have put a link
// or something else in its place.
func (f *Files) put(name string, b []byte) error {
	if err := f.makeAll(path.Dir(name), name); err != nil {
		return err
	}
	part := name + "." + rand.Text() + ".part"
	file, err := f.root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return describe(err, name)
	}
	_, err = file.Write(b)
	if err = errors.Join(err, file.Close()); err == nil {
		err = f.adopt(part)
	}
	if err == nil {
		err = f.root.Rename(part, name)
	}
	if err != nil {
		_ = f.root.Remove(part) // the first error tells more
	}
	return describe(err, name)
}
