package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Group is the sidecars of one instance.
type Group struct {
	ID, Handle string
	Secrets    []string // names of those in their environment
	Programs   []Program
}

// Program is one sidecar.
type Program struct {
	Name   string // of the program's file
	Config string // the name of its own file, or ""
}

// Options is what a Supervisor is made of. Its functions may be called together.
type Options struct {
	Home paths.Home
	Log  *slog.Logger
	// Lookup returns the path of a program.
	Lookup func(name string) (string, error)
	// Dir returns the folder with the files of an instance's sidecars, which it makes.
	Dir func(handle string) (string, error)
	// Asks returns the names of the secrets that a sidecar's file asks for. It is not ok
	// while the file is broken, or half written: what it asked for before stands.
	Asks func(handle, file string) (names []string, ok bool)
	// Resolve opens stored secrets, as instance.Secrets does.
	Resolve func(ctx context.Context, names []string) (map[string]secret.Value, error)
	// Tell writes a line to an instance's log.
	Tell   func(id, text string)
	Limits Limits
}

// Limits bounds how long things take. The zero value of a field is its default.
type Limits struct {
	// Grace is what a sidecar has between SIGTERM and SIGKILL.
	Grace time.Duration
	// Backoff is the first delay before a sidecar that ended is started again, MaxBackoff
	// the longest. One that ran for Steady begins anew.
	Backoff, MaxBackoff, Steady time.Duration
}

func (l *Limits) complete() {
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&l.Grace, 5 * time.Second}, {&l.Backoff, 500 * time.Millisecond}, {&l.MaxBackoff, time.Minute}, {&l.Steady, time.Minute}} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
}

// Supervisor runs the sidecars of a daemon. Its methods may be called together.
type Supervisor struct {
	o       Options
	watcher *fsnotify.Watcher // over the folders of posts; nil cannot watch
	starts  chan func()       // run by the one thread that starts processes
	wg      sync.WaitGroup    // posts
	own     sync.WaitGroup    // the supervisor's own goroutines

	mu     sync.Mutex // protects what follows; never held over I/O
	posts  map[string]*post
	closed bool
}

// post is the sidecars of one instance, from when they are wanted until they have ended.
type post struct {
	group  Group
	dir    string
	cancel context.CancelFunc
	over   <-chan struct{} // closed when they are not wanted any more
	done   chan struct{}   // closed when none is left
	nudges []chan struct{}
	alive  atomic.Int32
}

// New returns a Supervisor that runs nothing yet. Close ends it.
func New(o Options) *Supervisor {
	o.Limits.complete()
	s := &Supervisor{o: o, starts: make(chan func()), posts: map[string]*post{}}
	s.own.Go(s.starter)
	w, err := fsnotify.NewWatcher()
	if err != nil { // secrets that change are noticed all the same
		o.Log.Warn("the files of sidecars are not watched", logattr.Err(err))
		return s
	}
	s.watcher = w
	s.own.Go(s.watch)
	return s
}

// starter starts processes. A sidecar gets its parent-death signal when the thread ends
// that started it, so this one goes on until there are none; it is not unlocked, and ends
// with the goroutine.
func (s *Supervisor) starter() {
	runtime.LockOSThread()
	for start := range s.starts {
		start()
	}
}

// watch tells posts of changes of their files.
func (s *Supervisor) watch() {
	for {
		select {
		case ev, ok := <-s.watcher.Events:
			if !ok {
				return
			}
			s.nudge(filepath.Dir(ev.Name))
		case _, ok := <-s.watcher.Errors: // events were lost: all look
			if !ok {
				return
			}
			s.nudge("")
		}
	}
}

// nudge has the posts of a folder, or all, look at their files and secrets again.
func (s *Supervisor) nudge(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.posts {
		if dir != "" && p.dir != dir {
			continue
		}
		for _, n := range p.nudges {
			select {
			case n <- struct{}{}:
			default: // it is about to look
			}
		}
	}
}

// Look has all sidecars' files and secrets looked at: something of them has changed.
func (s *Supervisor) Look() { s.nudge("") }

// Want says that the sidecars of g are to run from now on, or, unless on, are not to. It
// returns at once. What ran before for that instance has ended before these begin.
func (s *Supervisor) Want(g Group, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.posts[g.ID]
	if old != nil {
		old.cancel()
	}
	if !on || s.closed {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &post{group: g, cancel: cancel, over: ctx.Done(), done: make(chan struct{})}
	for range g.Programs {
		p.nudges = append(p.nudges, make(chan struct{}, 1))
	}
	s.posts[g.ID] = p
	s.wg.Go(func() {
		if old != nil {
			<-old.done
		}
		s.man(ctx, p)
		s.mu.Lock()
		defer s.mu.Unlock()
		cancel()
		if s.posts[g.ID] == p {
			delete(s.posts, g.ID)
		}
		close(p.done)
	})
}

// man runs the sidecars of a post until they are not wanted any more and have ended.
func (s *Supervisor) man(ctx context.Context, p *post) {
	dir, err := s.o.Dir(p.group.Handle)
	if err == nil && s.watcher != nil {
		err = s.watcher.Add(dir)
	}
	if err != nil {
		s.o.Log.WarnContext(ctx, "the files of sidecars are not watched", logattr.Handle(p.group.Handle), logattr.Err(err))
	} else if s.watcher != nil {
		defer func() { _ = s.watcher.Remove(dir) }() // it may be gone by itself
	}
	s.mu.Lock()
	p.dir = dir
	s.mu.Unlock()
	var all sync.WaitGroup
	for i, prog := range p.group.Programs {
		k := &keeper{s: s, post: p, program: prog, nudged: p.nudges[i]}
		all.Go(func() { k.run(ctx) })
	}
	all.Wait()
	<-ctx.Done() // a group of none
}

// End ends the sidecars of an instance and returns when none is left.
func (s *Supervisor) End(ctx context.Context, id string) error {
	s.mu.Lock()
	p := s.posts[id]
	if p != nil {
		p.cancel()
	}
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.await(ctx)
}

// Relieved returns when those sidecars of an instance have ended that Want said are not to
// run any more. If they are wanted, it returns at once.
func (s *Supervisor) Relieved(ctx context.Context, id string) error {
	s.mu.Lock()
	p := s.posts[id]
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	select {
	case <-p.over:
		return p.await(ctx)
	default:
		return nil
	}
}

// await returns when the post's sidecars have ended, which somebody has seen to.
func (p *post) await(ctx context.Context) error {
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end the sidecars of %s: %w", p.group.Handle, context.Cause(ctx))
	}
}

// Running reports whether all sidecars of an instance run, of which it has some.
func (s *Supervisor) Running(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.posts[id]
	return p != nil && len(p.group.Programs) > 0 && int(p.alive.Load()) == len(p.group.Programs)
}

// Close ends all sidecars, and returns when none is left. Nothing is started after it.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	for _, p := range s.posts {
		p.cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
	if was {
		return nil
	}
	close(s.starts)
	var err error
	if s.watcher != nil {
		err = s.watcher.Close()
	}
	s.own.Wait()
	if err != nil {
		return errors.Join(errors.New("end the watch over the files of sidecars"), err)
	}
	return nil
}
