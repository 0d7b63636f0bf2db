package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// world is a host in memory: a store, instances whose commands take a while, agents.
type world struct {
	mu      sync.Mutex
	entries map[ID]Entry
	marks   map[instance.ID]map[string]time.Time
	runs    []string // time and command of each, in order
	notes   []string
	frames  []api.Frame
	files   map[instance.ID]string
	reads   int
	takes   time.Duration // a command
	status  int
	err     error         // of starts and sends
	ahead   time.Duration // the clock on the wall, of that of synctest
	running int
	most    int
}

func newWorld() *world {
	return &world{entries: map[ID]Entry{}, marks: map[instance.ID]map[string]time.Time{}, files: map[instance.ID]string{}}
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

// jump sets the clock on the wall.
func (w *world) jump(by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += by
}

func (w *world) LoadSchedules(context.Context) ([]Entry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.entries)), nil
}

func (w *world) AddSchedule(_ context.Context, e Entry) error {
	time.Sleep(time.Millisecond) // others come meanwhile
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries[e.ID] = e
	return nil
}

func (w *world) UpdateSchedule(_ context.Context, e Entry) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.entries[e.ID]; ok {
		w.entries[e.ID] = e
	}
	return nil
}

func (w *world) DeleteSchedule(_ context.Context, id ID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, id)
	return nil
}

func (w *world) LoadMarks(_ context.Context, id instance.ID) (map[string]time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.marks[id], nil
}

func (w *world) SaveMarks(_ context.Context, id instance.ID, m map[string]time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.marks[id] = m
	return nil
}

func (w *world) Start(ctx context.Context, id instance.ID, command []string) (Running, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	w.runs = append(w.runs, fmt.Sprintf("%s %s %s", time.Now().Add(w.ahead).UTC().Format("15:04:05"), id, strings.Join(command, " ")))
	w.running++
	w.most = max(w.most, w.running)
	return running{ctx, w}, nil
}

func (w *world) Note(_ instance.ID, line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, line)
}

type running struct {
	ctx context.Context //nolint:containedctx // of the command
	w   *world
}

func (running) ID() string { return "exec-1" }

func (r running) Wait() (int, error) {
	defer func() {
		r.w.mu.Lock()
		defer r.w.mu.Unlock()
		r.w.running--
	}()
	select {
	case <-time.After(r.w.takes):
		return r.w.status, nil
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
}

func (w *world) List() []instance.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Keys(w.files))
}

func (w *world) CronFile(id instance.ID) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if w.files[id] == "denied" {
		return nil, fault.New(fault.Denied, "a link leads out")
	}
	return []byte(w.files[id]), nil
}

func (w *world) Send(_ context.Context, _ instance.ID, f api.Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.frames = append(w.frames, f)
	return nil
}

// begin runs a Runner over w, from the state that w has, until stop.
func begin(t *testing.T, w *world) (r *Runner, stop func()) {
	t.Helper()
	c := Config{Store: w, Instances: w, Now: w.now, Log: slog.New(slog.DiscardHandler)}
	if len(w.files) > 0 {
		c.Agents = w
	}
	r = New(c)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	return r, func() {
		cancel()
		wg.Wait()
	}
}

func add(t *testing.T, r *Runner, w When, command ...string) Entry {
	t.Helper()
	e, err := r.Add(t.Context(), "inst-1", w, command)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// wantRuns compares and forgets what has run.
func (w *world) wantRuns(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.runs, want) {
		t.Errorf("ran %q, want %q", w.runs, want)
	}
	w.runs = nil
}

func (w *world) wantNote(t *testing.T, part string, times int) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, note := range w.notes {
		if strings.Contains(note, part) {
			n++
		}
	}
	if n != times {
		t.Errorf("%d notes have %q, want %d: %q", n, part, times, w.notes)
	}
}
