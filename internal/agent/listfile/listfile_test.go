package listfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func add(n int) func([]int) ([]int, error) {
	return func(list []int) ([]int, error) { return append(list, n), nil }
}

// TestTogether: no change is lost when many are made at once.
func TestTogether(t *testing.T) {
	f := &File[int]{Path: filepath.Join(t.TempDir(), "sub", "list.json"), Max: 1 << 10}
	if list, err := f.Load(); list != nil || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := f.Update(add(n)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := f.Load(); len(list) != 20 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

// TestRefused: what cannot be done leaves the file as it is.
func TestRefused(t *testing.T) {
	f := &File[int]{Path: filepath.Join(t.TempDir(), "list.json"), Max: 40}
	if err := f.Update(add(1)); err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if err := f.Update(func([]int) ([]int, error) { return nil, no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := f.Update(func([]int) ([]int, error) { return make([]int, 100), nil }); fault.KindOf(err) != fault.Exhausted {
		t.Error(err)
	}
	if list, err := f.Load(); len(list) != 1 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	for text, want := range map[string]fault.Kind{"{": fault.Invalid, strings.Repeat(" ", 41): fault.TooLarge} {
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.Update(add(1)); fault.KindOf(err) != want {
			t.Errorf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(f.Path); string(b) != text {
			t.Errorf("%q became %q, %v", text, b, err)
		}
	}
	if err := errors.Join(os.Remove(f.Path), os.Mkdir(f.Path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
}
