package image

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// cutter sends at most so many bytes of each answer, then breaks the connection.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	n := min(len(b), c.left)
	c.left -= n
	if _, err := c.ResponseWriter.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < len(b) {
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// holder sends at most so many bytes of an answer, and swallows the rest.
type holder struct {
	http.ResponseWriter
	left int
}

func (h *holder) Write(b []byte) (int, error) {
	n := min(len(b), h.left)
	h.left -= n
	_, err := h.ResponseWriter.Write(b[:n])
	return len(b), errors.Join(err, http.NewResponseController(h.ResponseWriter).Flush())
}

// TestCutConnections breaks each answer after a third of a layer. With ranges every
// attempt goes on; without, it must not go on for ever.
func TestCutConnections(t *testing.T) {
	data := noise(1, 900<<10)
	l := layerOf(t, reg("big", data))
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	digest := digestString(t, l)
	r := newServer(t)
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l, layerOf(t, reg("small", "s"))}))
	cut := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isBlob(req, digest) {
			w = &cutter{w, int(size/3 + 1)}
		}
		next.ServeHTTP(w, req)
	}
	r.spoil(cut)
	s := newStore(t)
	if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, ref), map[string]string{"big": data, "small": "s"})
	if n := r.count(digest); n != 3 {
		t.Errorf("the layer was asked for %d times, want 3: %q", n, r.asked)
	}
	if n := r.count(digest, "bytes="); n != 2 {
		t.Errorf("%d requests were for the rest, want 2", n)
	}

	t.Run("without ranges", func(t *testing.T) {
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			req.Header.Del("Range")
			cut(w, req, next)
		})
		s := newStore(t)
		_, err := s.Pull(t.Context(), ref, "", quiet)
		if fault.KindOf(err) != fault.Unavailable {
			t.Errorf("it ended with %v, want unavailable", err)
		}
		unfinished(t, s)
	})
}

// TestResume ends a pull in the middle, as a daemon that is killed does, and pulls with
// the next.
func TestResume(t *testing.T) {
	data := noise(2, 900<<10)
	l := layerOf(t, reg("big", data))
	digest := digestString(t, l)
	r := newServer(t)
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l}))
	ctx, cancel := context.WithCancel(t.Context())
	s := newStore(t)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !isBlob(req, digest) {
			next.ServeHTTP(w, req)
			return
		}
		defer func() {
			waitFor(t, func() bool {
				fi, err := os.Stat(s.blobFile(digest) + ".part")
				return err == nil && fi.Size() > 100<<10
			})
			cancel()
			<-req.Context().Done()
		}()
		next.ServeHTTP(&holder{w, 300 << 10}, req)
	})
	if _, err := s.Pull(ctx, ref, "", quiet); !errors.Is(err, context.Canceled) {
		t.Fatalf("a pull that was given up: %v", err)
	}
	unfinished(t, s)
	r.spoil(nil)
	s = reopen(t, s.home)
	if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, ref), map[string]string{"big": data})
	if r.count(digest, "bytes=") != 1 || r.count(digest) != 1 {
		t.Errorf("it did not go on: %q", r.asked)
	}

	// What was here may be rubbish: then the layer is fetched anew.
	if _, err := s.Remove(t.Context(), ref, false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.blobFile(digest)+".part", strings.Repeat("rubbish", 1000))
	if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, ref), map[string]string{"big": data})
}

func TestSpoiledLayers(t *testing.T) {
	l := layerOf(t, reg("big", noise(3, 200<<10)))
	digest := digestString(t, l)
	for name, c := range map[string]struct {
		spoil func(w http.ResponseWriter)
		want  fault.Kind
		blame fault.Blame
	}{
		"other bytes": {func(w http.ResponseWriter) {
			size, _ := l.Size()
			_, _ = io.WriteString(w, strings.Repeat("x", int(size)))
		}, fault.Invalid, fault.Image},
		"too many": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, noise(3, 1<<20)) }, fault.Invalid, fault.Image},
		"gone":     {func(w http.ResponseWriter) { http.Error(w, "{}", http.StatusNotFound) }, fault.NotFound, ""},
		"broken":   {func(w http.ResponseWriter) { http.Error(w, "{}", http.StatusInternalServerError) }, fault.Unavailable, ""},
		"a lying range": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "hello")
		}, fault.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newServer(t), newStore(t)
			ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l}))
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if isBlob(req, digest) {
					c.spoil(w)
					return
				}
				next.ServeHTTP(w, req)
			})
			_, err := s.Pull(t.Context(), ref, "", quiet)
			if fault.KindOf(err) != c.want || fault.BlameOf(err) != c.blame {
				t.Errorf("%v (%s by %q), want %s by %q", err, fault.KindOf(err), fault.BlameOf(err), c.want, c.blame)
			}
			if got := ids(t, s); len(got) != 0 {
				t.Errorf("there is %v", got)
			}
			unfinished(t, s)
			r.spoil(nil)
			if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
				t.Errorf("a later pull: %v", err)
			}
		})
	}
}

// TestStalledDownload goes on when nothing comes any more.
func TestStalledDownload(t *testing.T) {
	l := layerOf(t, reg("big", noise(4, 300<<10)))
	digest := digestString(t, l)
	r := newServer(t)
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l}))
	var first atomic.Bool
	first.Store(true)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isBlob(req, digest) && first.Swap(false) {
			size, _ := l.Size()
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			rc, _ := l.Compressed()
			defer func() { _ = rc.Close() }()
			_, _ = io.CopyN(w, rc, 100<<10)
			_ = http.NewResponseController(w).Flush()
			<-req.Context().Done() // the client gives up
			return
		}
		next.ServeHTTP(w, req)
	})
	s := newStore(t, func(o *Options) { o.Stall = 300 * time.Millisecond })
	if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
		t.Fatal(err)
	}
	if r.count(digest, "bytes=") != 1 {
		t.Errorf("it did not go on: %q", r.asked)
	}
}
