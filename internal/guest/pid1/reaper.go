//go:build linux

package pid1

import (
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// reaper waits for every child there is: those somebody waits for, and the orphans
// that PID 1 inherits.
type reaper struct {
	mu      sync.Mutex // held while a child is made or reaped, so that none dies unseen
	waiting map[int]chan<- unix.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{waiting: map[int]chan<- unix.WaitStatus{}}
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, unix.SIGCHLD)
	go func() { // for life
		for range sigs {
			r.reap()
		}
	}()
	return r
}

// start makes a child with fork and returns where its status will come.
func (r *reaper) start(fork func() (int, error)) (int, <-chan unix.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	done := make(chan unix.WaitStatus, 1)
	r.waiting[pid] = done
	return pid, done, nil
}

// signal signals a child, or with a negative id its process group, unless the child
// has been reaped: then the number may be another's.
func (r *reaper) signal(child, target int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, alive := r.waiting[child]; !alive {
		return nil
	}
	if err := unix.Kill(target, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if done, ok := r.waiting[pid]; ok {
			delete(r.waiting, pid)
			done <- status
		}
	}
}
