package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/store"
)

// home is a folder with a master key and a database.
type home struct {
	t   *testing.T
	dir string
}

func newHome(t *testing.T) *home {
	t.Helper()
	return &home{t, t.TempDir()}
}

func (h *home) key() string { return filepath.Join(h.dir, "master.key") }

// db opens the database, as a daemon does.
func (h *home) db() *store.Store {
	h.t.Helper()
	s, err := store.Open(h.t.Context(), filepath.Join(h.dir, "aegis.db"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (h *home) open() *Vault {
	h.t.Helper()
	return New(h.key(), h.db())
}

func set(t *testing.T, v *Vault, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if _, err := v.Set(t.Context(), pairs[i], secret.New(pairs[i+1])); err != nil {
			t.Fatalf("set %s: %v", pairs[i], err)
		}
	}
}

// want checks that the vault holds exactly these secrets.
func want(t *testing.T, v *Vault, pairs ...string) {
	t.Helper()
	got, err := v.Resolve(t.Context(), []string{instance.AllSecrets})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(pairs)/2 {
		t.Errorf("%d secrets, want %d", len(got), len(pairs)/2)
	}
	for i := 0; i < len(pairs); i += 2 {
		if s := got[pairs[i]].Reveal(); s != pairs[i+1] {
			t.Errorf("%s = %.40q, want %.40q", pairs[i], s, pairs[i+1])
		}
	}
}

func wantFault(t *testing.T, err error, kind fault.Kind, msg, hint string) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind || !strings.Contains(err.Error(), msg) || !strings.Contains(fault.HintOf(err), hint) {
		t.Errorf("err = %v (%s), hint %q; want %s, ...%s..., hint ...%s...", err, fault.KindOf(err), fault.HintOf(err), kind, msg, hint)
	}
}

func TestValuesAreExact(t *testing.T) {
	h := newHome(t)
	v := h.open()
	big := strings.Repeat("0123456789abcde\n", int(secret.MaxValue)/16)
	set(t, v, "A", "a", "LINES", "one\ntwo\r\n\n", "NUL", "a\x00b", "TEXT", "ü \u2028 <&> \"\\", "BIG", big, "A", "again")
	want(t, v, "A", "again", "LINES", "one\ntwo\r\n\n", "NUL", "a\x00b", "TEXT", "ü \u2028 <&> \"\\", "BIG", big)
	some, err := v.Resolve(t.Context(), []string{"A", "LINES"})
	if err != nil || len(some) != 2 || some["A"].Reveal() != "again" {
		t.Errorf("%d secrets, %v", len(some), err)
	}
	want(t, h.open(), "A", "again", "LINES", "one\ntwo\r\n\n", "NUL", "a\x00b", "TEXT", "ü \u2028 <&> \"\\", "BIG", big)
	fi, err := os.Stat(h.key())
	if err != nil || fi.Size() != 32 || fi.Mode().Perm() != 0o600 {
		t.Errorf("master key: %v, %v", fi, err)
	}
	for _, bad := range [][2]string{{"A-B", "x"}, {"A", ""}, {"A", "\xff"}, {"A", big + "x"}} {
		if _, err := v.Set(t.Context(), bad[0], secret.New(bad[1])); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v, want it refused", bad[0], err)
		}
	}
}

func TestListAndDelete(t *testing.T) {
	v := newHome(t).open()
	set(t, v, "B", "1", "A", "2")
	first, err := v.List(t.Context())
	if err != nil || len(first) != 2 || first[0].Name != "A" || first[1].Name != "B" {
		t.Fatalf("list = %+v, %v", first, err)
	}
	set(t, v, "A", "3")
	second, err := v.List(t.Context())
	if err != nil || !second[0].Created.Equal(first[0].Created) || !second[0].Updated.After(first[0].Updated) {
		t.Errorf("after a change: %+v, %v; before: %+v", second, err, first)
	}
	if err := v.Delete(t.Context(), "A"); err != nil {
		t.Error(err)
	}
	wantFault(t, v.Delete(t.Context(), "A"), fault.NotFound, "no secret A", "aegis secret set A")
	wantFault(t, v.Delete(t.Context(), "no name"), fault.Invalid, "bad name", "")
	want(t, v, "B", "1")
}

func TestMissing(t *testing.T) {
	h := newHome(t)
	v := h.open()
	want(t, v) // all of none
	_, err := v.Resolve(t.Context(), []string{"A"})
	wantFault(t, err, fault.NotFound, "no secret A", "aegis secret set A")
	if _, err := os.Stat(h.key()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key was made for nothing: %v", err)
	}
	set(t, v, "B", "b")
	_, err = v.Resolve(t.Context(), []string{"A", "B", "C"})
	wantFault(t, err, fault.NotFound, "no secrets A, C", "aegis secret set A")
	_, err = v.Resolve(t.Context(), []string{"A", instance.AllSecrets})
	wantFault(t, err, fault.NotFound, "no secret A", "aegis secret set A")
}

// TestBadKey breaks the master key in every way, and mends it while the vault is open.
func TestBadKey(t *testing.T) {
	other := make([]byte, 32)
	_, _ = rand.Read(other) // never fails
	for name, c := range map[string]struct {
		harm      func(path string) error
		msg, hint string
	}{
		"wrong":    {func(p string) error { return os.WriteFile(p, other, 0o600) }, "sealed with another master key", "backup"},
		"short":    {func(p string) error { return os.Truncate(p, 31) }, "has 31 bytes, not 32", "backup"},
		"long":     {func(p string) error { return os.Truncate(p, 33) }, "has 33 bytes, not 32", "backup"},
		"empty":    {func(p string) error { return os.Truncate(p, 0) }, "has 0 bytes", "backup"},
		"readable": {func(p string) error { return os.Chmod(p, 0o640) }, "its mode is 0640", "chmod 600 "},
		"missing":  {os.Remove, "is missing, and 2 stored secrets need it", "aegis secret delete NAME"},
		"a folder": {func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "is no ordinary file", "backup"},
		"a link":   {func(p string) error { return errors.Join(os.Remove(p), os.Symlink("elsewhere", p)) }, "is no ordinary file", "backup"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			v := h.open()
			set(t, v, "A", "a", "B", "b")
			good, err := os.ReadFile(h.key())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.harm(h.key()); err != nil {
				t.Fatal(err)
			}
			harmed, _ := os.ReadFile(h.key()) // not of a folder
			_, resolved := v.Resolve(t.Context(), []string{"A", "B"})
			_, setting := v.Set(t.Context(), "C", secret.New("c"))
			_, rotated := v.Rotate(t.Context())
			for _, err := range []error{resolved, setting, rotated, v.Recover(t.Context())} {
				wantFault(t, err, fault.Unavailable, c.msg, c.hint)
			}
			if now, _ := os.ReadFile(h.key()); string(now) != string(harmed) {
				t.Error("the file was overwritten")
			}
			if list, err := v.List(t.Context()); err != nil || len(list) != 2 {
				t.Errorf("list: %+v, %v", list, err)
			}
			if err := errors.Join(os.RemoveAll(h.key()), os.WriteFile(h.key(), good, 0o600)); err != nil {
				t.Fatal(err)
			}
			want(t, v, "A", "a", "B", "b")
		})
	}
}

func TestUnreadableKey(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a")
	if err := os.Chmod(h.key(), 0); err != nil {
		t.Fatal(err)
	}
	_, err := v.Resolve(t.Context(), []string{"A"})
	wantFault(t, err, fault.Unavailable, "cannot be read", "ls -l")
}

// TestAnewAfterLoss goes the way that the hints for a lost key tell.
func TestAnewAfterLoss(t *testing.T) {
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a", "B", "b")
	if err := os.Remove(h.key()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"A", "B"} {
		if err := v.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	set(t, v, "A", "anew")
	want(t, v, "A", "anew")
}

// damagedRows returns rows with one of them changed.
type damagedRows struct {
	Rows

	damage func([]secret.Sealed)
}

func (d damagedRows) Secrets(ctx context.Context, names []string) ([]secret.Sealed, error) {
	rows, err := d.Rows.Secrets(ctx, names)
	if err == nil {
		d.damage(rows)
	}
	return rows, err
}

func TestDamagedRow(t *testing.T) {
	for name, damage := range map[string]func([]secret.Sealed){
		"a bit":          func(r []secret.Sealed) { r[0].Box[len(r[0].Box)-1] ^= 1 },
		"the nonce":      func(r []secret.Sealed) { r[0].Box[0] ^= 1 },
		"cut off":        func(r []secret.Sealed) { r[0].Box = r[0].Box[:20] },
		"empty":          func(r []secret.Sealed) { r[0].Box = nil },
		"another's name": func(r []secret.Sealed) { r[0].Box, r[1].Box = r[1].Box, r[0].Box },
	} {
		t.Run(name, func(t *testing.T) {
			db := newHome(t)
			good := db.open()
			set(t, good, "A", "aaaaaaaaaaaaaaaaaaaa", "B", "bbbbbbbbbbbbbbbbbbb")
			v := New(db.key(), damagedRows{good.rows, damage})
			_, err := v.Resolve(t.Context(), []string{"A", "B"})
			wantFault(t, err, fault.Unavailable, "of the secret A is damaged", "aegis secret set A")
		})
	}
}

// TestDamageIsMended damages a row for good: a rotation changes nothing, and setting
// it again mends it.
func TestDamageIsMended(t *testing.T) {
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a", "B", "b")
	row, err := v.rows.Secrets(t.Context(), []string{"B"})
	if err != nil {
		t.Fatal(err)
	}
	row[0].Box[3] ^= 1
	if _, err := v.rows.SaveSecret(t.Context(), row[0]); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(h.key())
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Rotate(t.Context())
	wantFault(t, err, fault.Unavailable, "of the secret B is damaged", "aegis secret set B")
	if after, err := os.ReadFile(h.key()); err != nil || string(after) != string(before) {
		t.Errorf("the key has changed, %v", err)
	}
	if names := files(t, h.dir); slices.Contains(names, "master.key.next") {
		t.Errorf("left behind: %v", names)
	}
	if got, err := v.Resolve(t.Context(), []string{"A"}); err != nil || got["A"].Reveal() != "a" {
		t.Errorf("the other secret: %v", err)
	}
	set(t, v, "B", "mended")
	want(t, v, "A", "a", "B", "mended")
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestPlaintextIsNotStored looks for a value, its name being stored in clear, in the
// files of the database.
func TestPlaintextIsNotStored(t *testing.T) {
	const planted = "planted-plaintext-that-must-not-be-found"
	h := newHome(t)
	v := h.open()
	set(t, v, "PLANTED", planted)
	if _, err := v.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, name := range files(t, h.dir) {
		b, err := os.ReadFile(filepath.Join(h.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), planted) {
			t.Errorf("%s has the value in clear", name)
		}
		found = found || strings.Contains(string(b), "PLANTED")
	}
	if !found {
		t.Error("not even the name is there: this test looks in the wrong place")
	}
}

func TestFirstKeyIsMadeOnce(t *testing.T) {
	h := newHome(t)
	v := h.open()
	var wg sync.WaitGroup
	pairs := make([]string, 0, 40)
	for i := range 20 {
		name := fmt.Sprintf("K%d", i)
		pairs = append(pairs, name, name)
		wg.Go(func() { set(t, v, name, name) })
	}
	wg.Wait()
	want(t, v, pairs...)
}

// TestTogether sets, deletes, rotates and reads at the same time: a reader sees
// values that were set, or none.
func TestTogether(t *testing.T) {
	v := newHome(t).open()
	set(t, v, "STAYS", "stays")
	var work sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		work.Go(func() {
			name := fmt.Sprintf("K%d", i%2) // two for each name
			for n := range 12 {
				if _, err := v.Set(t.Context(), name, secret.New(name)); err != nil {
					t.Error(err)
				}
				if n%3 == 0 {
					if err := v.Delete(t.Context(), name); err != nil && fault.KindOf(err) != fault.NotFound {
						t.Error(err)
					}
				}
			}
		})
	}
	work.Go(func() {
		for range 8 {
			if _, err := v.Rotate(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := v.Resolve(t.Context(), []string{instance.AllSecrets})
				if err != nil || got["STAYS"].Reveal() != "stays" {
					t.Errorf("%d secrets, %v", len(got), err)
					return
				}
				for name, value := range got {
					if name != "STAYS" && value.Reveal() != name {
						t.Errorf("%s = %q", name, value.Reveal())
					}
				}
			}
		})
	}
	work.Wait()
	close(done)
	readers.Wait()
}

func TestWaitingForTheTurnEnds(t *testing.T) {
	v := newHome(t).open()
	end, err := v.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Set(ctx, "A", secret.New("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("set: %v", err)
	}
	if _, err := v.Rotate(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("rotate: %v", err)
	}
}

func TestRecoverSweeps(t *testing.T) {
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a")
	left := filepath.Join(h.dir, atomicfile.Prefix+"123")
	if err := os.WriteFile(left, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unfinished key file is left: %v", err)
	}
	want(t, v, "A", "a")
}
