package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
	"github.com/xfeldman/aegisvm/internal/store"
)

func TestRotate(t *testing.T) {
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a", "B", "b")
	before, err := os.ReadFile(h.key())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := v.rows.Secrets(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := v.Rotate(t.Context()); err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	after, err := os.ReadFile(h.key())
	if err != nil || string(after) == string(before) || len(after) != 32 {
		t.Errorf("the key stays the same, or is none: %v", err)
	}
	want(t, v, "A", "a", "B", "b")
	want(t, h.open(), "A", "a", "B", "b")
	// What the old key opens is nowhere any more.
	for _, name := range files(t, h.dir) {
		b, err := os.ReadFile(filepath.Join(h.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if strings.Contains(string(b), string(r.Box)) {
				t.Errorf("%s still has %s as the old key sealed it", name, r.Name)
			}
		}
		if strings.Contains(string(b), string(before)) {
			t.Errorf("%s has the old key", name)
		}
	}
	if err := os.WriteFile(h.key(), before, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = v.Resolve(t.Context(), []string{"A"})
	wantFault(t, err, fault.Unavailable, "another master key", "backup")
}

func TestRotateNothing(t *testing.T) {
	h := newHome(t)
	v := h.open()
	for range 2 {
		if n, err := v.Rotate(t.Context()); err != nil || n != 0 {
			t.Errorf("%d, %v", n, err)
		}
	}
	set(t, v, "A", "a")
	want(t, v, "A", "a")
}

// stopRows calls at before, within and after a rotation's transaction.
type stopRows struct {
	Rows

	at func(step int) error
}

func (s stopRows) ResealSecrets(ctx context.Context, reseal func(secret.Sealed) (secret.Sealed, error)) (int, error) {
	step := 0
	next := func() error {
		step++
		return s.at(step)
	}
	if err := next(); err != nil {
		return 0, err
	}
	n, err := s.Rows.ResealSecrets(ctx, func(row secret.Sealed) (secret.Sealed, error) {
		row, err := reseal(row)
		return row, errors.Join(err, next())
	})
	return n, errors.Join(err, next())
}

// rotateSteps is how often stopRows calls at in a rotation of TestRotateKilled: before
// the transaction, after each of three rows, and after the commit.
const rotateSteps = 5

// killEnv makes the test binary a daemon that rotates in this folder and is killed at
// a step: see TestMain.
const killEnv = "VAULT_TEST_ROTATE"

func TestMain(m *testing.M) {
	if where, ok := os.LookupEnv(killEnv); ok {
		rotateAndDie(where)
	}
	m.Run()
}

// rotateAndDie rotates in the folder of "STEP FOLDER", and kills this process at the
// step.
func rotateAndDie(where string) {
	at, dir, _ := strings.Cut(where, " ")
	last, err := strconv.Atoi(at)
	if err != nil {
		panic(err)
	}
	db, err := store.Open(context.Background(), filepath.Join(dir, "aegis.db"))
	if err != nil {
		panic(err)
	}
	v := New(filepath.Join(dir, "master.key"), stopRows{db, func(step int) error {
		if step == last {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}})
	if _, err := v.Rotate(context.Background()); err != nil {
		panic(err)
	}
	panic("the rotation was not killed")
}

// TestRotateKilled kills a process that rotates, at each step. After each kill all
// secrets are there for readers at once, and for everything else after Recover or the
// next write.
func TestRotateKilled(t *testing.T) {
	pairs := []string{"A", "a", "B", "b", "C", "c"}
	for step := 1; step <= rotateSteps; step++ {
		t.Run(strconv.Itoa(step), func(t *testing.T) {
			h := newHome(t)
			first := h.db()
			set(t, New(h.key(), first), pairs...)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", killEnv, step, h.dir))
			out, err := cmd.CombinedOutput()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Fatalf("%v\n%s", err, out)
			}
			if names := files(t, h.dir); !slices.Contains(names, "master.key") || !slices.Contains(names, "master.key.next") {
				t.Fatalf("both keys must be there: %v", names)
			}
			v := h.open()
			want(t, v, pairs...)
			if step%2 == 0 {
				set(t, v, "D", "d") // without Recover
			} else {
				if err := v.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				set(t, v, "D", "d")
			}
			all := append(slices.Clone(pairs), "D", "d")
			want(t, v, all...)
			if names := files(t, h.dir); slices.Contains(names, "master.key.next") {
				t.Errorf("left behind: %v", names)
			}
			if n, err := v.Rotate(t.Context()); err != nil || n != 4 {
				t.Errorf("another rotation: %d, %v", n, err)
			}
			want(t, h.open(), all...)
		})
	}
}

// TestRotateFails makes each step of a rotation fail instead.
func TestRotateFails(t *testing.T) {
	broken := errors.New("broken")
	for step := 1; step <= rotateSteps; step++ {
		h := newHome(t)
		db := h.db()
		pairs := []string{"A", "a", "B", "b", "C", "c"}
		set(t, New(h.key(), db), pairs...)
		v := New(h.key(), stopRows{db, func(n int) error {
			if n == step {
				return broken
			}
			return nil
		}})
		if _, err := v.Rotate(t.Context()); !errors.Is(err, broken) {
			t.Errorf("step %d: %v", step, err)
		}
		want(t, v, pairs...)
		if names := files(t, h.dir); slices.Contains(names, "master.key.next") {
			t.Errorf("step %d leaves %v", step, names)
		}
	}
}

// TestMixedKeys has rows under both keys, which no rotation leaves: nothing is
// removed.
func TestMixedKeys(t *testing.T) {
	h := newHome(t)
	v := h.open()
	set(t, v, "A", "a", "B", "b")
	next, err := makeMaster(v.nextPath())
	if err != nil {
		t.Fatal(err)
	}
	row := secret.Sealed{Meta: secret.Meta{Name: "B", KeyID: next.id}, Box: next.seal("B", secret.New("b"))}
	if _, err := v.rows.SaveSecret(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	wantFault(t, v.Recover(t.Context()), fault.Unavailable, "some secrets are sealed with", "keep both files")
	want(t, v, "A", "a", "B", "b")
}

// TestGolden opens what an earlier build sealed: a change of what is derived of a
// master key would make all stored secrets unreadable.
func TestGolden(t *testing.T) {
	k, err := newKey([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if k.id != "c7dc90f48035465e" {
		t.Errorf("key id %s", k.id)
	}
	box, err := hex.DecodeString("78d5f4e4af4dd124c5ea365dceaf86e0760687163320aa5ee72bc20412588ae10998")
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.open(secret.Sealed{Meta: secret.Meta{Name: "NAME"}, Box: box})
	if err != nil || v.Reveal() != "golden" {
		t.Errorf("%q, %v", v.Reveal(), err)
	}
}
