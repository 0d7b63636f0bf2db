// Package blob keeps pictures of conversations in the workspace, each in a file that is
// named by its content: .aegis/blobs, which the host writes to as well.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// Max bounds a picture, in bytes.
const Max = 10 << 20

// kinds are the pictures that models and chats take, and how their files' names end.
var kinds = map[string]string{"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}

// IsPicture reports whether a media type is one of a picture that can be kept.
func IsPicture(mediaType string) bool { return kinds[mediaType] != "" }

// Store is a folder of pictures.
type Store struct{ Dir string }

// Put keeps a picture.
func (s *Store) Put(data []byte) (api.Picture, error) {
	media := http.DetectContentType(data)
	switch {
	case !IsPicture(media):
		return api.Picture{}, fault.New(fault.Invalid, "it is %s, not a picture in png, jpeg, gif or webp", media)
	case len(data) > Max:
		return api.Picture{}, fault.New(fault.TooLarge, "a picture of %d bytes, at most %d", len(data), Max)
	}
	sum := sha256.Sum256(data)
	p := api.Picture{MediaType: media, Blob: hex.EncodeToString(sum[:]) + kinds[media], Size: int64(len(data))}
	path := filepath.Join(s.Dir, p.Blob)
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && fi.Size() == p.Size {
		return p, nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return api.Picture{}, fmt.Errorf("keep a picture: %w", err)
	}
	if err := atomicfile.Write(path, data, 0o600); err != nil {
		return api.Picture{}, fmt.Errorf("keep a picture: %w", err)
	}
	return p, nil
}

// Get reads a picture. Its name comes from outside and is one of this folder only.
func (s *Store) Get(p api.Picture) ([]byte, error) {
	if p.Blob == "" || strings.ContainsAny(p.Blob, "/\\\x00") || strings.HasPrefix(p.Blob, ".") {
		return nil, fault.New(fault.Invalid, "%q is no name of a picture", p.Blob)
	}
	f, err := os.OpenInRoot(s.Dir, p.Blob)
	if err != nil {
		return nil, fault.New(fault.NotFound, "it is gone")
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, Max+1))
	if err != nil {
		return nil, fmt.Errorf("read a picture: %w", err)
	}
	if len(data) > Max {
		return nil, fault.New(fault.TooLarge, "it is larger than %d bytes", Max)
	}
	return data, nil
}
