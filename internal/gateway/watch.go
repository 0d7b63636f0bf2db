package gateway

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a folder must have been quiet before its files are read:
	// editors write in several steps.
	settle = 100 * time.Millisecond
	// look is how often a folder is looked at that cannot be watched.
	look = 2 * time.Second
)

// watchFile tells changed whenever the file at path may have changed, until ctx ends.
func watchFile(ctx context.Context, path string, changed chan<- struct{}) {
	for ctx.Err() == nil {
		if w, err := fsnotify.NewWatcher(); err == nil {
			// The folder, not the file: one that is replaced is another file.
			if w.Add(filepath.Dir(path)) == nil {
				follow(ctx, w, path, changed)
			}
			_ = w.Close() // what it knew is of no use any more
		}
		timer := time.NewTimer(look)
		select {
		case <-ctx.Done():
		case <-timer.C:
			tell(changed)
		}
		timer.Stop()
	}
}

// follow passes on what w sees. It returns when ctx ends, or w sees nothing any more.
func follow(ctx context.Context, w *fsnotify.Watcher, path string, changed chan<- struct{}) {
	tell(changed) // what has happened before the watch
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.Events:
			switch {
			case !ok:
				return
			case e.Name == filepath.Dir(path) && e.Has(fsnotify.Remove|fsnotify.Rename):
				return // the folder itself has gone
			case e.Name == path:
				quiet = time.After(settle)
			}
		case _, ok := <-w.Errors: // events were lost
			if !ok {
				return
			}
			quiet = time.After(settle)
		case <-quiet:
			quiet = nil
			tell(changed)
		}
	}
}

func tell(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
