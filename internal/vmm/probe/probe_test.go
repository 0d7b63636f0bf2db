package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func store(t *testing.T) *Store {
	t.Helper()
	return &Store{Dir: filepath.Join(t.TempDir(), "verdicts"), Boot: "boot-1"}
}

func TestOnceForEachBootAndKey(t *testing.T) {
	s := store(t)
	trials := 0
	ask := func(s *Store, key string) Verdict {
		t.Helper()
		v, err := s.Once(t.Context(), key, func(context.Context) (Verdict, error) {
			trials++
			return Verdict{Works: true, Why: "tried " + key}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for range 3 {
		if v := ask(&Store{Dir: s.Dir, Boot: s.Boot}, "a"); !v.Works || v.Why != "tried a" {
			t.Errorf("verdict %+v", v)
		}
	}
	if trials != 1 {
		t.Errorf("%d trials for one key", trials)
	}
	ask(s, "b")
	ask(&Store{Dir: s.Dir, Boot: "boot-2"}, "a")
	if trials != 3 {
		t.Errorf("%d trials for another key and another boot, want 3", trials)
	}
	fi, err := os.Stat(s.Dir)
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v", fi.Mode(), err)
	}
}

func TestTogether(t *testing.T) {
	s := store(t)
	var trials atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			v, err := s.Once(t.Context(), "a", func(context.Context) (Verdict, error) {
				trials.Add(1)
				<-time.After(100 * time.Millisecond)
				return Verdict{Why: "so"}, nil
			})
			if err != nil || v.Why != "so" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	all.Wait()
	if n := trials.Load(); n != 1 {
		t.Errorf("%d trials", n)
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	s := store(t)
	trying, done := make(chan struct{}), make(chan struct{})
	var first sync.WaitGroup
	first.Go(func() {
		_, _ = s.Once(t.Context(), "a", func(context.Context) (Verdict, error) {
			close(trying)
			<-done
			return Verdict{}, nil
		})
	})
	<-trying
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	if _, err := s.Once(ctx, "a", nil); !errors.Is(err, cause) {
		t.Errorf("%v, not the context's cause", err)
	}
	close(done)
	first.Wait()
}

func TestErrorsAreNotRemembered(t *testing.T) {
	s := store(t)
	broken := errors.New("broken")
	if _, err := s.Once(t.Context(), "a", func(context.Context) (Verdict, error) { return Verdict{}, broken }); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	v, err := s.Once(t.Context(), "a", func(context.Context) (Verdict, error) { return Verdict{Works: true}, nil })
	if err != nil || !v.Works {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestPlantedVerdictsAreNotBelieved(t *testing.T) {
	for name, plant := range map[string]func(dir, file string) error{
		"open folder": func(dir, _ string) error { return os.Chmod(dir, 0o777) },
		"open file":   func(_, file string) error { return os.Chmod(file, 0o666) },
		"link": func(dir, file string) error {
			moved := filepath.Join(filepath.Dir(dir), "moved")
			return errors.Join(os.Rename(file, moved), os.Symlink(moved, file))
		},
		"garbage": func(_, file string) error { return os.WriteFile(file, []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t)
			lie := func(context.Context) (Verdict, error) { return Verdict{Works: true, Why: "a lie"}, nil }
			if _, err := s.Once(t.Context(), "a", lie); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(s.Dir, "verdict-*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if filepath.Ext(f) == "" {
					if err := plant(s.Dir, f); err != nil {
						t.Fatal(err)
					}
				}
			}
			v, err := s.Once(t.Context(), "a", func(context.Context) (Verdict, error) { return Verdict{Why: "the truth"}, nil })
			if err != nil || v.Why != "the truth" {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}
