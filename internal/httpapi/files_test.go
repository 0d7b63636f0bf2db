package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// copies is an Instances that can only copy.
type copies struct {
	Instances
	out func(w io.Writer) ([]string, error)
	in  func(ctx context.Context, req guestproto.Copy, r io.ReadCloser) ([]string, error)
}

func (c copies) CopyOut(_ context.Context, _ string, _ guestproto.Copy, w io.Writer) ([]string, error) {
	return c.out(w)
}

func (c copies) CopyIn(ctx context.Context, _ string, req guestproto.Copy, r io.ReadCloser) ([]string, error) {
	return c.in(ctx, req, r)
}

func serveCopies(t *testing.T, c copies) *client.Client {
	t.Helper()
	cl, _, _ := serveConfig(t, &stubRunner{}, Config{Instances: c, Limits: Limits{Body: 1000}}, os.Getuid())
	return cl
}

func TestCopyOut(t *testing.T) {
	full := fault.New(fault.Exhausted, "the guest ran out of it").WithHint("more")
	for _, c := range []struct {
		name  string
		bytes int
		notes []string
		err   error
	}{
		{"all", 3 << 20, []string{"one \"left\" out"}, nil},
		{"nothing", 0, nil, nil},
		{"error before", 0, nil, fault.New(fault.NotFound, "no such file")},
		{"error in the middle", 3 << 20, nil, full},
		{"error with notes", 100, []string{"n"}, full},
		{"many notes", 100, strings.Split(strings.Repeat(strings.Repeat("x", 300)+"\n", 32), "\n"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := serveCopies(t, copies{out: func(w io.Writer) ([]string, error) {
				for n := c.bytes; n > 0; n -= min(n, 64<<10) {
					if _, err := w.Write(make([]byte, min(n, 64<<10))); err != nil {
						return nil, err
					}
				}
				return c.notes, c.err
			}})
			var n int64
			d, err := cl.CopyFrom(t.Context(), "box", "/f")
			if err == nil {
				n, err = io.Copy(io.Discard, d)
				if len(d.Notes()) < min(1, len(c.notes)) {
					t.Errorf("notes %q, want %q", d.Notes(), c.notes)
				}
				_ = d.Close()
			}
			if n != int64(c.bytes) {
				t.Errorf("%d bytes, want %d", n, c.bytes)
			}
			if c.err == nil && err != nil || c.err != nil && (fault.KindOf(err) != fault.KindOf(c.err) || err.Error() != c.err.Error() || fault.HintOf(err) != fault.HintOf(c.err)) {
				t.Errorf("err = %v, want %v", err, c.err)
			}
		})
	}
}

// TestCopyOutForOthers: a client that does not know of the trailer gets an archive
// that no tar program takes for whole.
func TestCopyOutForOthers(t *testing.T) {
	s := &Server{conf: Config{Instances: copies{out: func(w io.Writer) ([]string, error) {
		_, err := w.Write(make([]byte, 512))
		return nil, errors.Join(err, errors.New("out of luck"))
	}}}}
	w := httptest.NewRecorder()
	if err := s.readFiles(w, httptest.NewRequest(http.MethodGet, "/v1/instances/box/files?path=/f", nil)); err != nil {
		t.Fatal(err)
	}
	if w.Body.Len() != 1024 || !strings.Contains(w.Body.String(), "the copy failed") {
		t.Errorf("%d bytes end in %q", w.Body.Len(), w.Body.String()[512:])
	}
}

// TestCopyInHasNoLimit: the limit of bodies is not one of copies.
func TestCopyInHasNoLimit(t *testing.T) {
	var got int64
	cl := serveCopies(t, copies{in: func(_ context.Context, req guestproto.Copy, r io.ReadCloser) (_ []string, err error) {
		if req != (guestproto.Copy{Path: "/a b/", Owners: true}) {
			t.Errorf("request %+v", req)
		}
		got, err = io.Copy(io.Discard, r)
		return []string{"note"}, err
	}})
	notes, err := cl.CopyTo(t.Context(), "box", "/a b/", client.CopyOptions{Owners: true}, strings.NewReader(strings.Repeat("x", 5<<20)))
	if err != nil || got != 5<<20 || len(notes) != 1 {
		t.Errorf("%d bytes, notes %q, %v", got, notes, err)
	}
}

// TestCopyInRefused: an error reaches the client while it still has much to send, or
// sends nothing and does not end.
func TestCopyInRefused(t *testing.T) {
	refuse := fault.New(fault.Exhausted, "the guest's disk is full")
	for name, body := range map[string]io.Reader{
		"much":   io.LimitReader(zeros{}, 1<<30),
		"silent": io.MultiReader(strings.NewReader("some"), silent(t.Context().Done())),
	} {
		cl := serveCopies(t, copies{in: func(_ context.Context, _ guestproto.Copy, r io.ReadCloser) ([]string, error) {
			if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
				t.Error(err)
			}
			return nil, errors.Join(refuse, r.Close())
		}})
		_, err := cl.CopyTo(t.Context(), "box", "/f", client.CopyOptions{}, body)
		if fault.KindOf(err) != fault.Exhausted || err.Error() != refuse.Error() {
			t.Errorf("%s: err = %v, want %v", name, err, refuse)
		}
	}
}

// TestCopyInGivenUp: a body that breaks is never taken for one that ends.
func TestCopyInGivenUp(t *testing.T) {
	seen := make(chan error, 1)
	cl := serveCopies(t, copies{in: func(_ context.Context, _ guestproto.Copy, r io.ReadCloser) ([]string, error) {
		_, err := io.Copy(io.Discard, r)
		seen <- err
		return nil, err
	}})
	boom := errors.New("boom")
	_, err := cl.CopyTo(t.Context(), "box", "/f", client.CopyOptions{}, io.MultiReader(strings.NewReader("some"), failing{boom}))
	if !errors.Is(err, boom) {
		t.Errorf("err = %v", err)
	}
	if err := <-seen; fault.KindOf(err) != fault.Canceled {
		t.Errorf("the daemon saw %v", err)
	}
}

func TestCopyParameters(t *testing.T) {
	s := &Server{}
	for _, query := range []string{"", "path=", "path=f", "path=/f&owners=maybe", "path=/f&extract=2", "path=/%ff"} {
		err := s.readFiles(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v1/instances/box/files?"+query, nil))
		wantFault(t, err, fault.Invalid, "parameter")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// silent is what never says a word before the test ends.
type silent <-chan struct{}

func (s silent) Read([]byte) (int, error) {
	<-s
	return 0, io.ErrClosedPipe
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
