package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"go.uber.org/goleak"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/rootfs/rootfstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStore opens the images of a new home that set-up has filled. more changes its
// options.
func newStore(tb testing.TB, more ...func(*Options)) *Store {
	tb.Helper()
	home := paths.Home(filepath.Join(tb.TempDir(), "home"))
	rootfstest.Install(tb, home)
	return reopen(tb, home, more...)
}

func reopen(tb testing.TB, home paths.Home, more ...func(*Options)) *Store {
	tb.Helper()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	tb.Cleanup(transport.CloseIdleConnections)
	o := Options{Home: home, Log: slog.New(slog.DiscardHandler), Transport: transport, Keychain: nobody{}, Stall: 10 * time.Second}
	for _, m := range more {
		m(&o)
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// nobody has no credentials.
type nobody struct{}

func (nobody) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

func quiet(api.ImageProgress) {}

// file is a member of an archive.
type file struct {
	tar.Header
	data string
}

func reg(name, data string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func archiveOf(tb testing.TB, files ...file) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		h.Size, h.Format = int64(len(f.data)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// layerOf makes a layer of files.
func layerOf(tb testing.TB, files ...file) v1.Layer {
	tb.Helper()
	return packed(tb, compression.GZip, files...)
}

func packed(tb testing.TB, how compression.Compression, files ...file) v1.Layer {
	tb.Helper()
	data := archiveOf(tb, files...)
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }, tarball.WithCompression(how))
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// imageOf stacks layers. more changes its description.
func imageOf(tb testing.TB, layers []v1.Layer, more ...func(*v1.ConfigFile)) v1.Image {
	tb.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := img.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", runtime.GOARCH
	for _, m := range more {
		m(c)
	}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		tb.Fatal(err)
	}
	return img
}

// noise is data that does not compress.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

// server is a registry whose answers a test can spoil.
type server struct {
	*httptest.Server

	mu     sync.Mutex
	before func(w http.ResponseWriter, r *http.Request, next http.Handler) // nil is next
	asked  []string                                                        // method and path of requests, and their ranges
}

func newServer(tb testing.TB) *server {
	tb.Helper()
	s := &server{}
	next := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		before := s.before
		s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		s.mu.Unlock()
		if before != nil {
			before(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}))
	tb.Cleanup(s.Close)
	return s
}

func (s *server) spoil(before func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.asked = before, nil
}

// count returns how many requests had all of the words in them.
func (s *server) count(words ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.asked {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(a, w) }) {
			n++
		}
	}
	return n
}

func (s *server) ref(repo string) string { return strings.TrimPrefix(s.URL, "http://") + "/" + repo }

func (s *server) push(tb testing.TB, repo string, img v1.Image) string {
	tb.Helper()
	ref, err := name.ParseReference(s.ref(repo))
	if err != nil {
		tb.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, img, remote.WithTransport(transport)); err != nil {
		tb.Fatal(err)
	}
	return s.ref(repo)
}

func isBlob(r *http.Request, digest string) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+digest)
}

func digestString(tb testing.TB, l v1.Layer) string {
	tb.Helper()
	h, err := l.Digest()
	if err != nil {
		tb.Fatal(err)
	}
	return h.String()
}

// contents returns the files of an image that is here, by path.
func contents(tb testing.TB, s *Store, ref string) map[string]string {
	tb.Helper()
	base, release, err := s.Resolve(tb.Context(), ref, instance.PullNever)
	if err != nil {
		tb.Fatal(err)
	}
	defer release()
	return rootContents(tb, s, base.Root)
}

func rootContents(tb testing.TB, s *Store, root string) map[string]string {
	tb.Helper()
	img, err := rootfs.LoadRoot(s.home, root)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := os.Open(img.Path)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	fsys, err := erofs.Open(f)
	if err != nil {
		tb.Fatal(err)
	}
	out := map[string]string{}
	err = fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			out[path] = d.Type().String()
			return nil
		}
		data, err := fs.ReadFile(fsys, path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func same(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok || g != v {
			tb.Errorf("%s holds %.40q (%t), want %.40q", k, g, ok, v)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			tb.Errorf("%s is there", k)
		}
	}
}

// ids returns the ids of all images.
func ids(tb testing.TB, s *Store) []string {
	tb.Helper()
	all, err := s.List(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, i := range all {
		if i.From != fromSetUp {
			out = append(out, i.ID)
		}
	}
	return out
}

// layersLeft returns the names in the cache of layers.
func layersLeft(tb testing.TB, s *Store) []string {
	tb.Helper()
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// unfinished fails the test if anything is left that is not whole.
func unfinished(tb testing.TB, s *Store) {
	tb.Helper()
	for _, dir := range []string{rootfs.Roots(s.home), s.path("spool"), s.path("records"), s.path("tags")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			tb.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), ".part") || dir == s.path("spool") {
				tb.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

func writeFile(tb testing.TB, path, data string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		tb.Fatal(err)
	}
}
