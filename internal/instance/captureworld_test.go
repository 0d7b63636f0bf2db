package instance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/vmm"
)

// stubArchive keeps captures in memory, fails on command, and counts what exists.
type stubArchive struct {
	w *stubWorld

	moves      bool          // machines lose their memory when they are taken
	taking     time.Duration // how long Take lasts
	captureErr error
	takeErr    error
	readyErr   error
	layErr     error
	startErr   map[string]error // by the handle of what is started
	uselessErr error            // of memory of snapshots

	mu        sync.Mutex
	live      int // captures that were not released
	takes     int
	laid      []ID
	snapshots []Snapshot
}

func newStubArchive(w *stubWorld) *stubArchive {
	return &stubArchive{w: w, startErr: map[string]error{}}
}

// left returns how many captures nobody has released, and how often a machine was taken.
func (s *stubArchive) left() (live, takes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live, s.takes
}

func (s *stubArchive) hold(c *stubCapture) *stubCapture {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live++
	return c
}

func (s *stubArchive) Capture(_ context.Context, id ID, _ Spec, live bool) (Capture, error) {
	if s.captureErr != nil {
		return nil, s.captureErr
	}
	return s.hold(&stubCapture{s: s, source: id, cold: !live && !s.w.Saved(id)}), nil
}

func (s *stubArchive) Snapshots(context.Context) ([]Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.snapshots), nil
}

func (s *stubArchive) OpenSnapshot(ctx context.Context, ref string) (Snapshot, Capture, error) {
	all, _ := s.Snapshots(ctx)
	for _, snap := range all {
		if snap.Name == ref || string(snap.ID) == ref {
			return snap, s.hold(&stubCapture{s: s, source: snap.Origin.ID, cold: snap.Cold, kept: true}), nil
		}
	}
	return Snapshot{}, nil, fault.New(fault.NotFound, "there is no snapshot %q", ref)
}

func (s *stubArchive) DeleteSnapshot(_ context.Context, ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshots = slices.DeleteFunc(s.snapshots, func(x Snapshot) bool { return x.Name == ref })
	return nil
}

// stubCapture is a Capture that holds nothing.
type stubCapture struct {
	s      *stubArchive
	source ID
	cold   bool
	kept   bool
	once   sync.Once
}

func (c *stubCapture) Take(ctx context.Context, m vmm.Machine) (bool, error) {
	if paused, _ := m.Paused(ctx); !paused {
		return false, errors.New("the machine runs")
	}
	if err := nap(ctx, c.s.taking); err != nil {
		return false, err
	}
	if c.s.takeErr != nil {
		return false, c.s.takeErr
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.takes++
	return c.s.moves, nil
}

func (c *stubCapture) Onward() Plan {
	return Plan{Kind: Wake, Recipe: vmm.Spec{ID: string(c.source)}, Source: vmm.Restore{}}
}

func (c *stubCapture) Ready(ctx context.Context) error {
	if c.s.readyErr != nil {
		return c.s.readyErr
	}
	return nap(ctx, 300*time.Millisecond)
}

func (c *stubCapture) Cold() bool { return c.cold }

func (c *stubCapture) Lay(_ context.Context, id ID) error {
	if c.s.layErr != nil {
		return c.s.layErr
	}
	c.s.w.mu.Lock()
	defer c.s.w.mu.Unlock()
	c.s.w.ground[id] = true
	c.s.laid = append(c.s.laid, id)
	return nil
}

func (c *stubCapture) Start(ctx context.Context, id ID, spec Spec, magic guestproto.Magic) (Plan, error) {
	if c.cold {
		return c.s.w.Prepare(ctx, id, spec, magic, false)
	}
	if err := c.s.startErr[spec.Handle]; err != nil {
		return Plan{Kind: Fork}, err
	}
	if c.kept && c.s.uselessErr != nil {
		return Plan{Kind: Fork}, c.s.uselessErr
	}
	return Plan{Kind: Fork, Recipe: vmm.Spec{ID: string(id)}, Source: vmm.Restore{}}, nil
}

func (c *stubCapture) Keep(_ context.Context, name string, of Origin) (Snapshot, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if strings.HasPrefix(name, "bad") {
		return Snapshot{}, fault.New(fault.Invalid, "bad name")
	}
	snap := Snapshot{ID: NewSnapshotID(), Name: name, Created: time.Now(), Cold: c.cold, Origin: of}
	c.s.snapshots = append(c.s.snapshots, snap)
	return snap, nil
}

func (c *stubCapture) Release() {
	c.once.Do(func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		c.s.live--
	})
}
