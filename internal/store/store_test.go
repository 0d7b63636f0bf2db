package store

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/size"
)

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func record(handle string) instance.Record {
	now := time.Now().UTC()
	return instance.Record{
		ID: instance.NewID(),
		Spec: instance.Spec{
			Handle: handle, Command: []string{"sh", "-c", "echo 'ü'; exit"}, Env: map[string]string{"A": "b\nc"},
			Memory: 512 * size.MiB, VCPUs: 2, Disk: 8 * size.GiB,
		},
		Enabled: true, Created: now, Updated: now.Add(time.Second), Why: "it was stopped", Magic: guestproto.NewMagic(),
		Lease: instance.Lease{Reason: "build", Expires: now.Add(time.Minute)},
	}
}

func TestInstances(t *testing.T) {
	path := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, path)
	a, b := record("a"), record("b")
	if a.ID > b.ID { // made in the same millisecond; rows come in order of their ids
		a.ID, b.ID = b.ID, a.ID
	}
	for _, r := range []instance.Record{a, b} {
		if err := s.SaveInstance(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	twin := record("a")
	if err := s.SaveInstance(t.Context(), twin); fault.KindOf(err) != fault.Conflict {
		t.Errorf("second instance of a name: %v, want a conflict", err)
	}
	b.Enabled, b.Why, b.Stopped = false, "", time.Now().UTC()
	if err := s.SaveInstance(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", fi.Mode(), err)
	}
	s = open(t, path)
	got, err := s.LoadInstances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []instance.Record{a, b}; !reflect.DeepEqual(got, want) {
		t.Errorf("loaded\n%+v, want\n%+v", got, want)
	}
	for range 2 {
		if err := s.DeleteInstance(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.LoadInstances(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("after delete: %d, %v", len(got), err)
	}
}

func TestConcurrentHandles(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	var wg sync.WaitGroup
	won := make(chan instance.ID, 16)
	for range 16 {
		wg.Go(func() {
			r := record("same")
			if err := s.SaveInstance(t.Context(), r); err == nil {
				won <- r.ID
			} else if fault.KindOf(err) != fault.Conflict {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d instances have the same name", len(won))
	}
}

// TestEveryMigration opens databases of every age.
func TestEveryMigration(t *testing.T) {
	for n := range len(migrations) + 1 {
		path := filepath.Join(t.TempDir(), "aegis.db")
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if _, err := db.ExecContext(t.Context(), migrations[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.ExecContext(t.Context(), fmt.Sprintf("PRAGMA user_version = %d", n)); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if _, err := db.ExecContext(t.Context(), rowOfSchema1); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		s := open(t, path)
		if err := s.SaveInstance(t.Context(), record("x")); err != nil {
			t.Errorf("from schema %d: %v", n, err)
		}
		save(t, s, sealed("A", "k", "box"))
		all, err := s.LoadInstances(t.Context())
		if err != nil || len(all) != min(n, 1)+1 || n > 0 && all[0].Spec.Command[0] != "serve" {
			t.Errorf("from schema %d: %+v, %v", n, all, err)
		}
	}
}

// rowOfSchema1 is an instance as the first release stored it.
const rowOfSchema1 = `INSERT INTO instances (id, handle, spec, enabled, created_at, updated_at, active_at, stopped_at, why, magic) VALUES ('inst-0', 'old', '{"Handle":"old","Command":["serve"],"Env":null,"Memory":536870912}', 1,
	'2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '', '', '', '000102030405060708090a0b0c0d0e0f1011121314151617')`

func TestUnusable(t *testing.T) {
	newer := filepath.Join(t.TempDir(), "aegis.db")
	s := open(t, newer)
	if _, err := s.db.ExecContext(t.Context(), "PRAGMA user_version = 9999"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	garbage := filepath.Join(t.TempDir(), "aegis.db")
	if err := os.WriteFile(garbage, []byte("this is not a database, but long enough to be looked at as one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fault.Kind{newer: fault.Conflict, garbage: fault.Unavailable} {
		s, err := Open(t.Context(), path)
		if err == nil {
			_ = s.Close()
		}
		if fault.KindOf(err) != want || fault.HintOf(err) == "" {
			t.Errorf("Open = %v (%s, hint %q), want %s and a hint", err, fault.KindOf(err), fault.HintOf(err), want)
		}
	}
}
