package telegram

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
)

// sessions knows the session of each chat that /new gave one. It is the receiver's, but
// for of, which commands that run call too.
type sessions struct {
	file string
	mu   *sync.Mutex
	ids  map[int64]string
}

func loadSessions(dir string) (sessions, error) {
	s := sessions{file: filepath.Join(dir, "sessions.map"), mu: &sync.Mutex{}, ids: map[int64]string{}}
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s.ids); err != nil {
		return s, fmt.Errorf("decode %s: %w", s.file, err)
	}
	return s, nil
}

func (s sessions) of(chat int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.ids[chat]; ok {
		return id
	}
	return strconv.FormatInt(chat, 10)
}

func (s sessions) set(chat int64, id string) error {
	s.mu.Lock()
	s.ids[chat] = id
	b, err := json.Marshal(s.ids)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(s.file, b, 0o600)
}

// ring keeps the last values that were added to it.
type ring[T comparable] struct{ values []T }

const ringSize = 512

func (r *ring[T]) has(v T) bool { return slices.Contains(r.values, v) }

func (r *ring[T]) add(v T) {
	r.values = append(r.values, v)
	if len(r.values) > ringSize {
		r.values = slices.Delete(r.values, 0, ringSize/2)
	}
}
