package session

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// Recent returns the sessions in dir whose files changed since a time, the newest first,
// at most limit of them.
func Recent(dir string, since time.Time, limit int) ([]api.Session, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type aged struct {
		key  api.Session
		when time.Time
	}
	var found []aged
	for _, e := range entries {
		key, ok := ParseFileName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		// One that is gone meanwhile is none.
		if fi, err := e.Info(); err == nil && fi.ModTime().After(since) {
			found = append(found, aged{key, fi.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b aged) int { return b.when.Compare(a.when) })
	var out []api.Session
	for _, f := range found[:min(limit, len(found))] {
		out = append(out, f.key)
	}
	return out, nil
}
