package blob

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func TestPutAndGet(t *testing.T) {
	data, err := base64.StdEncoding.DecodeString(png)
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{Dir: filepath.Join(t.TempDir(), "blobs")}
	p, err := s.Put(data)
	if err != nil || p.MediaType != "image/png" || p.Size != int64(len(data)) {
		t.Fatalf("%+v, %v", p, err)
	}
	if got, err := s.Get(p); err != nil || string(got) != string(data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if again, err := s.Put(data); err != nil || again != p {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := s.Put([]byte("<html>")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a page is a picture: %v", err)
	}
	if _, err := s.Put(append(data, make([]byte, Max)...)); fault.KindOf(err) != fault.TooLarge {
		t.Errorf("too large: %v", err)
	}
}

// TestNamesStayInTheFolder: neither a name nor a link leads out.
func TestNamesStayInTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := &Store{Dir: filepath.Join(dir, "blobs")}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secret", filepath.Join(s.Dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../secret", "/etc/passwd", "link", "..", "gone.png", "a/../../secret"} {
		if data, err := s.Get(api.Picture{Blob: name}); err == nil {
			t.Errorf("%q gives %q", name, data)
		}
	}
}
