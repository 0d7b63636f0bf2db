package instance

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// stubImages knows one image, and counts who holds it.
type stubImages struct {
	base Base
	err  error

	mu     sync.Mutex
	held   int
	pulls  []Pull
	layers []string
}

func (s *stubImages) Resolve(_ context.Context, ref string, pull Pull) (Base, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Base{}, nil, s.err
	}
	if ref != "" && ref != "app:1" {
		return Base{}, nil, fault.New(fault.NotFound, "the image %s is not here", ref)
	}
	s.held++
	s.pulls = append(s.pulls, pull)
	return s.base, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held--
	}), nil
}

func (s *stubImages) Commit(_ context.Context, base Base, ref string, layer io.Reader) (Base, error) {
	data, err := io.ReadAll(layer)
	if err != nil || s.err != nil {
		return Base{}, errors.Join(err, s.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.layers = append(s.layers, ref+" "+string(data))
	base.ID = "committed"
	return base, nil
}

func imageWorld() (*stubWorld, *stubImages) {
	w := newStubWorld()
	images := &stubImages{base: Base{ID: "one", Root: "root", Env: []string{"PATH=/opt", "A=image", "B=image"}, Workdir: "/work", User: "7:8"}}
	w.images = images
	return w, images
}

// TestImageDefaults starts programs of an image that says how.
func TestImageDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		spec          Spec
		workdir, user string
		env           []string
	}{
		"the image's": {Spec{}, "/work", "7:8", []string{"A=image", "B=image", "PATH=/opt"}},
		"overridden":  {Spec{Workdir: "/", User: "0", Env: map[string]string{"A": "spec", "C": "spec"}}, "/", "0", []string{"A=spec", "B=image", "C=spec", "PATH=/opt"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, images := imageWorld()
				s := NewSet(w.world())
				c.spec.Command, c.spec.Image, c.spec.Pull = []string{"x"}, "app:1", PullAlways
				v, err := s.Launch(t.Context(), c.spec)
				if err != nil {
					t.Fatal(err)
				}
				if w.asked.Workdir != c.workdir || w.asked.User != c.user || !slices.Equal(w.asked.Env, c.env) {
					t.Errorf("the program was started with %+v", w.asked)
				}
				if v.Spec.Base.ID != "one" || v.Spec.Base.Root != "root" || v.Spec.Image != "app:1" {
					t.Errorf("the instance stands on %+v", v.Spec.Base)
				}
				if images.held != 0 || !slices.Equal(images.pulls, []Pull{PullAlways}) {
					t.Errorf("%d hold the image; it was asked for %q", images.held, images.pulls)
				}
				// It keeps what it was made of.
				images.base.ID = "two"
				if err := errors.Join(s.Stop(t.Context(), v.Spec.Handle), s.Start(t.Context(), v.Spec.Handle)); err != nil {
					t.Fatal(err)
				}
				if now, err := s.Get(v.Spec.Handle); err != nil || now.Spec.Base.ID != "one" {
					t.Errorf("after a restart it stands on %+v, %v", now.Spec.Base, err)
				}
				if err := s.Close(t.Context(), StopAll); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestNoImage leaves nothing of an instance whose image cannot be had.
func TestNoImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, images := imageWorld()
		s := NewSet(w.world())
		for _, spec := range []Spec{{Image: "no:1"}, {Pull: "sometimes"}} {
			spec.Command = []string{"x"}
			want := fault.NotFound
			if spec.Pull != "" {
				want = fault.Invalid
			}
			if _, err := s.Create(t.Context(), spec); fault.KindOf(err) != want {
				t.Errorf("create: %v, want %s", err, want)
			}
			if _, err := s.Run(t.Context(), spec); fault.KindOf(err) != want {
				t.Errorf("run: %v, want %s", err, want)
			}
		}
		machines, ground := w.left()
		if s.Len() != 0 || machines != 0 || ground != 0 || images.held != 0 {
			t.Errorf("%d instances, %d machines, %d folders and %d holds are left", s.Len(), machines, ground, images.held)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCommitOfInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, images := imageWorld()
		w.runs = 1e12
		w.execs = 1e6
		s := NewSet(w.world())
		v, err := s.Launch(t.Context(), Spec{Command: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		base, err := s.Commit(t.Context(), v.Spec.Handle, "mine:1")
		if err != nil || base.ID != "committed" || !slices.Equal(images.layers, []string{"mine:1 "}) {
			t.Errorf("%+v, %v; layers %q", base, err, images.layers)
		}
		images.err = errors.New("no room")
		if _, err := s.Commit(t.Context(), v.Spec.Handle, "mine:2"); !errors.Is(err, images.err) {
			t.Errorf("a commit that fails: %v", err)
		}
		if _, err := s.Commit(t.Context(), "nobody", "mine:3"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("of nobody: %v", err)
		}
		synctest.Wait()
		if now, err := s.Get(v.Spec.Handle); err != nil || len(now.Holds) != 0 {
			t.Errorf("after the commits it is held: %+v, %v", now.Holds, err)
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Fatal(err)
		}
	})
}
