package guestlink

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// newFiles returns a link to a guest whose root folder for copies is dir.
func newFiles(t *testing.T) (l *Link, r *rig, dir string) {
	t.Helper()
	dir = t.TempDir()
	r = newRig(t, guesttest.Options{Files: dir})
	return r.open(t), r, dir
}

// tarOf returns an archive of one file.
func tarOf(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// closing counts how often a reader is closed.
type closing struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func newClosing(r io.Reader) *closing { return &closing{Reader: r, closed: make(chan struct{})} }

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func TestCopyBothWays(t *testing.T) {
	l, _, dir := newFiles(t)
	data := bytes.Repeat([]byte("0123456789"), 500_000)
	_, err := l.CopyIn(t.Context(), guestproto.Copy{Path: "/new"}, newClosing(bytes.NewReader(tarOf(t, "old", data))))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "new")); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v; want %d", len(got), err, len(data))
	}
	var out bytes.Buffer
	if _, err := l.CopyOut(t.Context(), guestproto.Copy{Path: "/new"}, &out); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&out)
	h, err := r.Next()
	if err != nil || h.Name != "new" {
		t.Fatalf("%+v, %v", h, err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(data))
	}
}

func TestCopyRefusals(t *testing.T) {
	l, _, dir := newFiles(t)
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(path string, b []byte) error {
		_, err := l.CopyIn(t.Context(), guestproto.Copy{Path: path}, newClosing(bytes.NewReader(b)))
		return err
	}
	out := func(path string) error {
		_, err := l.CopyOut(t.Context(), guestproto.Copy{Path: path}, io.Discard)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		kind fault.Kind
		msg  string
	}{
		"nothing there":  {out("/none"), fault.NotFound, "copy out of the VM"},
		"relative":       {out("none"), fault.Invalid, "not absolute"},
		"no parent":      {in("/none/f", nil), fault.NotFound, "copy into the VM"},
		"not a folder":   {in("/f/", nil), fault.Invalid, "not a directory"},
		"no archive":     {in("/g", bytes.Repeat([]byte("noise "), 10_000)), fault.Invalid, "not a tar archive"},
		"empty":          {in("/g", nil), fault.Invalid, "empty"},
		"out of bounds":  {in("/g", tarOf(t, "../g", nil)), fault.Invalid, "has the name"},
		"half":           {in("/g", tarOf(t, "g", make([]byte, 9000))[:5000]), fault.Invalid, "in the middle"},
		"goes on and on": {in("/g", append(tarOf(t, "g", nil), make([]byte, 4<<20)...)), fault.Invalid, "does not end"},
	} {
		if fault.KindOf(c.err) != c.kind || !strings.Contains(c.err.Error(), c.msg) {
			t.Errorf("%s: %v (%s), want %s ...%s...", name, c.err, fault.KindOf(c.err), c.kind, c.msg)
		}
	}
	if err := os.Remove(filepath.Join(dir, "g")); err != nil {
		t.Errorf("the whole file of an archive that goes on: %v", err)
	}
}

// TestCopyWithoutAbility refuses guests that are older than copies.
func TestCopyWithoutAbility(t *testing.T) {
	l := newRig(t, guesttest.Options{}).open(t)
	_, err := l.CopyOut(t.Context(), guestproto.Copy{Path: "/f"}, io.Discard)
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "restart") {
		t.Errorf("err = %v", err)
	}
}

// TestCopyGivenUp: the end of a copy's context frees both ends, at whatever moment,
// and the next copy works.
func TestCopyGivenUp(t *testing.T) {
	l, _, dir := newFiles(t)
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")

	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := l.CopyOut(ctx, guestproto.Copy{Path: "/large"}, writerFunc(func(b []byte) (int, error) {
		cancel(cause)
		return len(b), nil
	}))
	if !errors.Is(err, cause) {
		t.Errorf("out: %v", err)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		_, _ = w.Write(tarOf(t, "half", make([]byte, 1<<20))[:700_000])
		cancel(cause)
	}()
	if _, err = l.CopyIn(ctx, guestproto.Copy{Path: "/half"}, r); !errors.Is(err, cause) {
		t.Errorf("in: %v", err)
	}
	<-wrote
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", names)
		}
	}
	var out bytes.Buffer
	if _, err := l.CopyOut(t.Context(), guestproto.Copy{Path: "/large"}, &out); err != nil || out.Len() < 8<<20 {
		t.Errorf("afterwards: %d bytes, %v", out.Len(), err)
	}
}

// TestCopyAborted: a reader that fails is an error, not the end of the archive, even
// if it fails with what io calls an unexpected end.
func TestCopyAborted(t *testing.T) {
	l, _, dir := newFiles(t)
	whole := tarOf(t, "f", make([]byte, 100_000))
	for _, cut := range []int{0, 700, 50_000, len(whole)} {
		r := io.MultiReader(bytes.NewReader(whole[:cut]), failing{io.ErrUnexpectedEOF})
		if _, err := l.CopyIn(t.Context(), guestproto.Copy{Path: "/g"}, newClosing(r)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "g")); err == nil && cut < len(whole) {
			t.Errorf("cut at %d: the file is there", cut)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestCopyRefusedEarly: the guest's error ends a copy whose source would go on for
// ever.
func TestCopyRefusedEarly(t *testing.T) {
	l, _, _ := newFiles(t)
	r, w := io.Pipe()
	go func() { _, _ = w.Write(bytes.Repeat([]byte("noise "), 1000)) }() // and then nothing more
	_, err := l.CopyIn(t.Context(), guestproto.Copy{Path: "/g"}, r)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "not a tar archive") {
		t.Errorf("err = %v", err)
	}
}

// TestCopyRefusedByGuest: closing the source ends the request, as it does under an HTTP
// server. What counts is why it was closed.
func TestCopyRefusedByGuest(t *testing.T) {
	l, _, _ := newFiles(t)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		go func() { _, _ = w.Write(bytes.Repeat([]byte("noise "), 1000)) }()
		_, err := l.CopyIn(ctx, guestproto.Copy{Path: "/g"}, ending{r, cancel})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "not a tar archive") {
			t.Fatalf("err = %v", err)
		}
		cancel()
	}
}

// ending is a source whose Close ends the request it belongs to.
type ending struct {
	*io.PipeReader
	end context.CancelFunc
}

func (e ending) Close() error {
	e.end()
	return e.PipeReader.Close()
}

// TestCopyCut: a copy whose session ends fails, and says so; it is not the end.
func TestCopyCut(t *testing.T) {
	l, r, dir := newFiles(t)
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	_, err := l.CopyOut(t.Context(), guestproto.Copy{Path: "/large"}, writerFunc(func(b []byte) (int, error) {
		once.Do(r.cut)
		return len(b), nil
	}))
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("out: %v", err)
	}
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write(tarOf(t, "f", make([]byte, 1<<20))[:300_000])
		r.cut()
	}()
	if _, err := l.CopyIn(t.Context(), guestproto.Copy{Path: "/f"}, pr); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("in: %v", err)
	}
}
