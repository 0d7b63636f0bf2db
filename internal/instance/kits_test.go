package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// stubKits knows one kit, and notes what it is told.
type stubKits struct {
	mu   sync.Mutex
	told []string
	err  error // of Furnish
}

func (k *stubKits) note(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = append(k.told, fmt.Sprintf(format, args...))
}

// since returns what it was told since the last time.
func (k *stubKits) since() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	told := k.told
	k.told = nil
	return told
}

func (k *stubKits) Apply(spec *Spec) error {
	if spec.Kit.Name != "agent" {
		return fault.New(fault.NotFound, "there is no kit %q", spec.Kit.Name)
	}
	spec.Kit = Kit{Name: "agent", Version: "2", Sidecars: []Sidecar{{Program: "gateway"}}}
	if len(spec.Command) == 0 {
		spec.Command = []string{"agent"}
	}
	return nil
}

func (k *stubKits) Furnish(_ ID, spec Spec) error {
	k.note("furnish %s", spec.Handle)
	return k.err
}

func (k *stubKits) Attend(a Attendance) { k.note("attend %s %v %v", a.Handle, a.On, a.Secrets) }

func (k *stubKits) Relieved(context.Context, ID) error {
	k.note("relieved")
	return nil
}

func (k *stubKits) Dismiss(_ context.Context, _ ID, handle string) error {
	k.note("dismiss %s", handle)
	return nil
}

// TestKitOfAnInstance: what it says is kept, and its sidecars are wanted while the instance
// is, and for as long as it is there.
func TestKitOfAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kits := newStubWorld(), &stubKits{}
		w.runs = 0 // for ever
		world := w.world()
		world.Kits, world.Secrets = kits, &safe{values: map[string]string{"KEY": "x"}}
		s := NewSet(world)
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := kits.since(); !slices.Equal(got, want) {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		v, err := s.Launch(t.Context(), Spec{Handle: "bot", Kit: Kit{Name: "agent", Programs: []string{"of the caller's"}}})
		if err != nil {
			t.Fatal(err)
		}
		if k := v.Spec.Kit; k.Name != "agent" || k.Version != "2" || len(k.Programs) != 0 || v.Spec.Command[0] != "agent" {
			t.Errorf("kit %+v, command %q", k, v.Spec.Command)
		}
		expect("create", "furnish bot", "attend bot true []")
		if err := s.Stop(t.Context(), "bot"); err != nil {
			t.Fatal(err)
		}
		expect("stop")
		if _, err := s.SetSecrets(t.Context(), "bot", []string{"KEY"}); err != nil {
			t.Fatal(err)
		}
		expect("other secrets", "attend bot true [KEY]")
		if err := errors.Join(s.Disable(t.Context(), "bot"), s.Start(t.Context(), "bot")); err != nil {
			t.Fatal(err)
		}
		expect("off and on", "attend bot false [KEY]", "relieved", "attend bot true [KEY]")
		if err := s.Close(t.Context(), Keep); err != nil {
			t.Fatal(err)
		}
		expect("the daemon leaves")

		s = NewSet(world)
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("the next daemon", "attend bot true [KEY]")
		if err := s.Delete(t.Context(), "bot"); err != nil {
			t.Fatal(err)
		}
		expect("delete", "attend bot false [KEY]", "dismiss bot")
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Fatal(err)
		}
	})
}

// TestKitThatFails leaves no instance.
func TestKitThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kits := newStubWorld(), &stubKits{}
		world := w.world()
		world.Kits = kits
		s := NewSet(world)
		for _, make := range []func(Spec) error{
			func(spec Spec) error { _, err := s.Create(t.Context(), spec); return err },
			func(spec Spec) error { _, err := s.Run(t.Context(), spec); return err },
		} {
			if err := make(Spec{Kit: Kit{Name: "nothing"}}); fault.KindOf(err) != fault.NotFound {
				t.Errorf("no such kit: %v", err)
			}
			kits.err = errors.New("the disk is full")
			if err := make(Spec{Kit: Kit{Name: "agent"}}); !errors.Is(err, kits.err) {
				t.Errorf("its files cannot be written: %v", err)
			}
		}
		synctest.Wait()
		if s.Len() != 0 {
			t.Errorf("%d instances", s.Len())
		}
		for _, told := range kits.since() {
			if told[:7] != "furnish" {
				t.Errorf("told %q", told)
			}
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Fatal(err)
		}
		world.Kits = nil
		if _, err := NewSet(world).Create(t.Context(), Spec{Kit: Kit{Name: "agent"}}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a daemon without kits: %v", err)
		}
	})
}

// TestKitOfCopies: copies have sidecars of their own, once they are there for good, and no
// files that say what those do.
func TestKitOfCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, kits := newStubWorld(), &stubKits{}
		w.runs, w.template = time.Hour, true
		world := w.world()
		world.Kits = kits
		s := NewSet(world)
		if _, err := s.Launch(t.Context(), Spec{Handle: "bot", Kit: Kit{Name: "agent"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		kits.since()
		if _, _, err := s.Fork(t.Context(), "bot", ForkSpec{Names: []string{"copy"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got, want := kits.since(), []string{"attend copy true []"}; !slices.Equal(got, want) {
			t.Errorf("a fork: told %q, want %q", got, want)
		}
		snap, err := s.Snapshot(t.Context(), "bot", "before")
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.CreateFrom(t.Context(), string(snap.ID), FromSnapshot{Handle: "later"}, true)
		if err != nil || v.Spec.Kit.Name != "agent" {
			t.Fatalf("%+v, %v", v.Spec.Kit, err)
		}
		synctest.Wait()
		if got, want := kits.since(), []string{"attend later true []"}; !slices.Equal(got, want) {
			t.Errorf("from a snapshot: told %q, want %q", got, want)
		}
		if s.Len() != 3 {
			t.Errorf("%d instances", s.Len())
		}
		if err := s.Close(t.Context(), StopAll); err != nil {
			t.Fatal(err)
		}
	})
}
