package process

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/xfeldman/aegisvm/internal/guest/outlog"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Table is the set of processes the host knows. Its methods may be called together.
type Table struct {
	launcher Launcher
	ring     func() (outlog.File, error)

	mu      sync.Mutex
	execs   map[guestproto.ExecID]*entry
	closed  bool
	running sync.WaitGroup
}

// entry is a process, or the attempt to start one.
type entry struct {
	ready chan struct{} // closed when the fields below are set
	exec  *Exec
	err   error
}

// New returns an empty table. The function ring makes the files of output logs; it
// may be nil.
func New(launcher Launcher, ring func() (outlog.File, error)) *Table {
	return &Table{launcher: launcher, ring: ring, execs: map[guestproto.ExecID]*entry{}}
}

// Spawn starts a process. If its ID is known already nothing is started: the
// request has come twice.
func (t *Table) Spawn(req guestproto.Spawn) (*Exec, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, &guestproto.Error{Code: guestproto.CodeUnavailable, Msg: "the VM is going down"}
	}
	if e, ok := t.execs[req.ID]; ok {
		t.mu.Unlock()
		<-e.ready
		return e.exec, e.err
	}
	e := &entry{ready: make(chan struct{})}
	t.execs[req.ID] = e
	t.running.Add(1) // for launch; run has its own
	t.mu.Unlock()
	defer t.running.Done()

	e.exec, e.err = t.launch(req)
	t.mu.Lock()
	kept := t.execs[req.ID] == e
	if e.err != nil && kept {
		delete(t.execs, req.ID)
	}
	t.mu.Unlock()
	close(e.ready)
	if e.err == nil && !kept {
		e.exec.abandon() // the host gave it up while it started
	}
	return e.exec, e.err
}

func (t *Table) launch(req guestproto.Spawn) (*Exec, error) {
	p, err := t.launcher.Launch(req)
	if err != nil {
		return nil, err
	}
	e := &Exec{
		ID:   req.ID,
		Log:  outlog.New(outlog.Config{Memory: req.Memory, Ring: req.Ring, Open: t.ring}),
		proc: p,
		done: make(chan struct{}),
	}
	if p.Stdin() != nil {
		e.Stdin = newStdin()
	}
	t.running.Go(e.run)
	return e, nil
}

// check refuses what no launcher needs to see. IDs become names of cgroups.
func check(req guestproto.Spawn) error {
	invalid := func(format string, args ...any) error {
		return &guestproto.Error{Code: guestproto.CodeInvalid, Msg: fmt.Sprintf(format, args...)}
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if id := string(req.ID); id == "" || len(id) > 64 || strings.Trim(id, letters) != "" {
		return invalid("bad exec id %q", id)
	}
	if len(req.Command) == 0 || req.Command[0] == "" {
		return invalid("no command")
	}
	for _, s := range slices.Concat(req.Command, []string{req.Workdir, req.User}) {
		if strings.ContainsRune(s, 0) {
			return invalid("a NUL in %q", s)
		}
	}
	for _, s := range req.Env {
		if strings.ContainsRune(s, 0) {
			name, _, _ := strings.Cut(s, "=")
			return invalid("a NUL in the environment variable %q", name) // its value may be a secret
		}
	}
	return nil
}

// Get returns the process id.
func (t *Table) Get(id guestproto.ExecID) (*Exec, error) {
	t.mu.Lock()
	e, ok := t.execs[id]
	t.mu.Unlock()
	if !ok {
		return nil, &guestproto.Error{Code: guestproto.CodeNotFound, Msg: fmt.Sprintf("no process %q", id)}
	}
	<-e.ready
	return e.exec, e.err
}

// Ack drops the output before off. A process whose Exit frame is acknowledged is
// forgotten.
func (t *Table) Ack(e *Exec, off uint64) (forgotten bool) {
	if !e.Log.Ack(off) {
		return false
	}
	t.mu.Lock()
	if known, ok := t.execs[e.ID]; ok && known.exec == e {
		delete(t.execs, e.ID)
	}
	t.mu.Unlock()
	e.Log.Close()
	return true
}

// Keep kills and forgets every process but the owned, acknowledges what the host
// has of those, and returns their states.
func (t *Table) Keep(owned []guestproto.Owned) []guestproto.Exec {
	offsets := map[guestproto.ExecID]uint64{}
	for _, o := range owned {
		offsets[o.Exec] = o.Offset
	}
	t.mu.Lock()
	var gone []*entry
	for id, e := range t.execs {
		if _, keep := offsets[id]; !keep {
			gone = append(gone, e)
			delete(t.execs, id)
		}
	}
	kept := maps.Clone(t.execs)
	t.mu.Unlock()
	for _, e := range gone {
		if e.isReady() && e.err == nil {
			e.exec.abandon()
		}
	}
	states := []guestproto.Exec{}
	for id, e := range kept {
		switch {
		case !e.isReady(): // perhaps it waits for the thaw, which comes after this
			states = append(states, guestproto.Exec{ID: id, Running: true})
			continue
		case e.err != nil:
			continue
		}
		if t.Ack(e.exec, offsets[e.exec.ID]) {
			continue
		}
		_, end := e.exec.Log.Bounds()
		states = append(states, guestproto.Exec{ID: e.exec.ID, Running: e.exec.Running(), End: end})
	}
	slices.SortFunc(states, func(a, b guestproto.Exec) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return states
}

func (e *entry) isReady() bool {
	select {
	case <-e.ready:
		return true
	default:
		return false
	}
}

// Terminate refuses new processes, asks those that run to end, and kills them
// after grace.
func (t *Table) Terminate(grace time.Duration) {
	t.mu.Lock()
	t.closed = true
	all := slices.Collect(maps.Values(t.execs))
	t.mu.Unlock()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	signal := func(sig syscall.Signal) {
		for _, e := range all {
			if <-e.ready; e.err == nil && e.exec.Running() {
				_ = e.exec.Kill(int(sig)) // it may have ended already
			}
		}
	}
	if grace > 0 {
		signal(syscall.SIGTERM)
		for _, e := range all {
			if e.err != nil {
				continue
			}
			select {
			case <-e.exec.Done():
			case <-timer.C:
				timer.Reset(0) // for the others too
			}
		}
	}
	signal(syscall.SIGKILL)
}

// Close kills all processes and waits until nothing of them is left.
func (t *Table) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.Keep(nil)
	t.running.Wait()
	return nil
}

// ErrorOf returns err in the form the host gets.
func ErrorOf(err error) *guestproto.Error {
	if e, ok := errors.AsType[*guestproto.Error](err); ok {
		return e
	}
	return &guestproto.Error{Code: guestproto.CodeInternal, Msg: err.Error()}
}
