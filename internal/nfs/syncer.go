package nfs

import (
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

const (
	// youth is how long after its making a file counts as new.
	youth = 10 * time.Second
	// syncDelay is how long the first contents of a new file may wait for the disk.
	syncDelay = time.Second
	// manyWaiting is how many files may wait before they are synced at once, and
	// tooMany before their writers wait too.
	manyWaiting, tooMany = 128, 256
	// syncWorkers is how many files are synced together: a file system makes one commit
	// of what it is told at once.
	syncWorkers = 8
)

// syncer decides when data goes to the disk.
//
// A stable WRITE is what the guest's kernel sends at close() of a small file as well
// as at fsync(); nothing tells one from the other. Syncing at each close makes
// unpacking an archive wait for the disk once for each file. So the first stable write
// to a file that was just made is answered at once and synced soon after; everything
// that has to be on the disk later waits until that has been done, and so the order in
// which things become durable is kept. What a crash of the host can cost is the
// contents of files that were made in the second before; it ends the guest too.
type syncer struct {
	v    *volume
	data func(fd int) error // puts a file on the disk

	mu      sync.Mutex
	young   map[ident]time.Time // files that were made and have not been stable yet
	waiting *batch
	running *batch // nil while there is none
	timer   *time.Timer
	wake    chan struct{}
	stop    chan struct{}
	ended   sync.WaitGroup
}

// batch is files that wait together.
type batch struct {
	files []*file
	done  chan struct{}
}

func newSyncer(v *volume) *syncer {
	s := &syncer{
		v: v, data: syncData, young: map[ident]time.Time{}, waiting: &batch{done: make(chan struct{})},
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	s.timer = time.AfterFunc(time.Hour, s.hurry)
	s.timer.Stop()
	s.ended.Go(s.run)
	return s
}

// close syncs what waits.
func (s *syncer) close() {
	s.timer.Stop()
	close(s.stop)
	s.ended.Wait()
}

// made notes that a file is new.
func (s *syncer) made(id ident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.young) >= 4*tooMany {
		for old, at := range s.young {
			if time.Since(at) > youth {
				delete(s.young, old)
			}
		}
		if len(s.young) >= 4*tooMany {
			return // it is synced at once, then
		}
	}
	s.young[id] = time.Now()
}

// removed notes that a file is no more.
func (s *syncer) removed(id ident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young, id)
}

// isNew reports whether this is the first stable write to a new file.
func (s *syncer) isNew(id ident) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.young[id]
	delete(s.young, id)
	return ok && time.Since(at) < youth
}

// write does write, which is to be stable when write returns.
func (s *syncer) write(f *file, write func() error) error {
	if s.v.volatile {
		return write()
	}
	if s.isNew(f.id) {
		if err := write(); err != nil {
			return err
		}
		s.later(f)
		return nil
	}
	s.flush()
	if err := write(); err != nil {
		return err
	}
	return s.sync(f)
}

// commit makes all that was written to f stable.
func (s *syncer) commit(f *file) error {
	if s.v.volatile {
		return nil
	}
	s.removed(f.id)
	s.flush()
	return s.sync(f)
}

func (s *syncer) sync(f *file) error {
	s.v.files.synced(f) // before: what is written meanwhile makes it dirty again
	if err := s.data(f.fd); err != nil && !isErr(err, unix.EINVAL, unix.EROFS) {
		s.v.files.touched(f)
		return err
	}
	return nil
}

// later has f synced soon.
func (s *syncer) later(f *file) {
	s.v.files.retain(f)
	s.mu.Lock()
	s.waiting.files = append(s.waiting.files, f)
	n := len(s.waiting.files)
	s.mu.Unlock()
	switch {
	case n == 1:
		s.timer.Reset(syncDelay)
	case n >= tooMany:
		s.flush()
	case n >= manyWaiting:
		s.hurry()
	}
}

// hurry has what waits synced now.
func (s *syncer) hurry() {
	select {
	case s.wake <- struct{}{}:
	default: // it is told already
	}
}

// flush returns when all that waited has been synced.
func (s *syncer) flush() {
	s.mu.Lock()
	running, waiting := s.running, s.waiting
	if len(waiting.files) == 0 {
		waiting = nil
	}
	s.mu.Unlock()
	if running != nil {
		<-running.done
	}
	if waiting != nil {
		s.hurry()
		<-waiting.done
	}
}

func (s *syncer) run() {
	for {
		select {
		case <-s.wake:
			s.once()
		case now := <-s.v.files.idle.C:
			s.v.files.sweep(now)
		case <-s.stop:
			s.once()
			return
		}
	}
}

// once syncs what waits.
func (s *syncer) once() {
	s.mu.Lock()
	b := s.waiting
	if len(b.files) == 0 {
		s.mu.Unlock()
		return
	}
	s.waiting = &batch{done: make(chan struct{})}
	s.running = b
	s.mu.Unlock()

	for _, f := range b.files {
		startSync(f.fd) // all of it is on its way before any is waited for: that is one commit, and not many
	}
	queue := make(chan *file)
	var workers sync.WaitGroup
	for range min(syncWorkers, len(b.files)) {
		workers.Go(func() {
			for f := range queue {
				if err := s.settle(f); err != nil {
					s.v.log.Error("sync a file", logattr.Err(err), slog.Uint64("inode", f.id.ino))
				}
				s.v.files.release(f)
			}
		})
	}
	for _, f := range b.files {
		queue <- f
	}
	close(queue)
	workers.Wait()

	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	close(b.done)
}

// settle syncs a file, unless it has been removed.
func (s *syncer) settle(f *file) error {
	if st, err := (place{fd: f.fd}).stat(); err == nil && st.links == 0 {
		return nil
	}
	return s.sync(f)
}
