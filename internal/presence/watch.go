package presence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Watch is a watch over a file that must stay where it is.
type Watch struct {
	path    string
	file    os.FileInfo
	watcher *fsnotify.Watcher
	gone    chan struct{}
	wg      sync.WaitGroup
}

// WatchFile watches the file at path, which exists, until Stop.
func WatchFile(path string) (*Watch, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	// The folder, not the file: one that is removed while it is open does not tell.
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", path, err), watcher.Close())
	}
	w := &Watch{path: path, file: fi, watcher: watcher, gone: make(chan struct{})}
	w.wg.Go(w.run)
	return w, nil
}

// Gone is closed when the file is no longer at its path: removed, replaced or moved away.
func (w *Watch) Gone() <-chan struct{} { return w.gone }

// Stop ends the watch.
func (w *Watch) Stop() error {
	err := w.watcher.Close()
	w.wg.Wait()
	return err
}

func (w *Watch) run() {
	for w.there() {
		select {
		case _, ok := <-w.watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-w.watcher.Errors: // events were lost: look
			if !ok {
				return
			}
		}
	}
	close(w.gone)
}

func (w *Watch) there() bool {
	fi, err := os.Lstat(w.path)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || os.SameFile(fi, w.file) // what cannot be looked at now may be there
}
