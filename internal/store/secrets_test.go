package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/secret"
)

func sealed(name, keyID, box string) secret.Sealed {
	now := time.Now().UTC()
	return secret.Sealed{Meta: secret.Meta{Name: name, KeyID: keyID, Created: now, Updated: now}, Box: []byte(box)}
}

func save(t *testing.T, s *Store, rows ...secret.Sealed) {
	t.Helper()
	for _, r := range rows {
		if _, err := s.SaveSecret(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, path)
	a, b := sealed("A", "k1", "box\x00a"), sealed("B", "k1", "box b")
	save(t, s, b, a)
	_ = s.Close()
	s = open(t, path)
	for _, c := range []struct {
		names []string
		want  []secret.Sealed
	}{
		{nil, []secret.Sealed{a, b}},
		{[]string{"B", "C"}, []secret.Sealed{b}},
		{[]string{}, nil},
		{[]string{`"`, "*", "A' OR 1=1"}, nil},
	} {
		if got, err := s.Secrets(t.Context(), c.names); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; want %+v", c.names, got, err, c.want)
		}
	}
	later := sealed("A", "k2", "box of later")
	later.Created = later.Created.Add(time.Hour)
	later.Updated = later.Created
	got, err := s.SaveSecret(t.Context(), later)
	if err != nil || !got.Created.Equal(a.Created) || !got.Updated.Equal(later.Updated) || got.KeyID != "k2" {
		t.Errorf("replaced: %+v, %v", got, err)
	}
	list, err := s.ListSecrets(t.Context())
	if err != nil || len(list) != 2 || list[0] != got || list[1] != b.Meta {
		t.Errorf("list = %+v, %v", list, err)
	}
	for _, want := range []bool{true, false} {
		if existed, err := s.DeleteSecret(t.Context(), "A"); err != nil || existed != want {
			t.Errorf("delete: %v, %v; want %v", existed, err, want)
		}
	}
}

func TestResealIsAllOrNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	save(t, s, sealed("A", "k1", "a"), sealed("B", "k1", "b"))
	before, err := s.Secrets(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	reseal := func(fail string) func(secret.Sealed) (secret.Sealed, error) {
		return func(r secret.Sealed) (secret.Sealed, error) {
			r.KeyID, r.Box = "k2", append([]byte("new "), r.Box...)
			if r.Name == fail {
				return r, broken
			}
			return r, nil
		}
	}
	if _, err := s.ResealSecrets(t.Context(), reseal("B")); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
	if now, err := s.Secrets(t.Context(), nil); err != nil || !reflect.DeepEqual(now, before) {
		t.Errorf("after an error: %+v, %v", now, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ResealSecrets(ctx, reseal("")); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if n, err := s.ResealSecrets(t.Context(), reseal("")); err != nil || n != 2 {
		t.Errorf("%d, %v", n, err)
	}
	now, err := s.Secrets(t.Context(), nil)
	if err != nil || string(now[1].Box) != "new b" || now[1].KeyID != "k2" || !now[1].Updated.Equal(before[1].Updated) {
		t.Errorf("%+v, %v", now, err)
	}
}

// TestDeletedIsGone looks for what was deleted and replaced in the database's file,
// whose free pages would have it.
func TestDeletedIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, path)
	marks := map[string][]byte{"DELETED": []byte("deleted-mark"), "REPLACED": []byte("replaced-mark"), "KEPT": []byte("kept-mark")}
	for name, mark := range marks {
		save(t, s, sealed(name, "k", string(bytes.Repeat(mark, 5000))))
	}
	if _, err := s.DeleteSecret(t.Context(), "DELETED"); err != nil {
		t.Fatal(err)
	}
	save(t, s, sealed("REPLACED", "k", "short"))
	if err := s.Close(); err != nil { // moves the journal into the file
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, mark := range marks {
		if found := bytes.Contains(b, mark); found != (name == "KEPT") {
			t.Errorf("%s is in the file: %v", name, found)
		}
	}
}
