// Package memory is what an agent remembers over all its sessions: short notes in one
// file of the workspace, which users may read and edit.
package memory

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/listfile"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// The limits of a memory.
const (
	MaxNotes = 1000
	MaxNote  = 4 << 10 // bytes of one
	maxFile  = 8 << 20
)

// Note is one thing to remember.
type Note struct {
	ID      string    `json:"id"`
	Text    string    `json:"text"`
	Tags    []string  `json:"tags,omitempty"`
	Created time.Time `json:"created_at"`
}

// Store is the notes in a file: a JSON list, oldest first. It may be used from many
// goroutines.
type Store struct {
	notes listfile.File[Note]
}

// New returns the Store in the file at path, which need not be there.
func New(path string) *Store {
	return &Store{listfile.File[Note]{Path: path, Max: maxFile}}
}

// Add keeps a note.
func (s *Store) Add(text string, tags []string) (Note, error) {
	text = strings.TrimSpace(strings.ToValidUTF8(text, "?"))
	if text == "" || len(text) > MaxNote {
		return Note{}, fault.New(fault.Invalid, "a note has from 1 to %d bytes; put more into a file, and remember where it is", MaxNote)
	}
	if len(tags) > 16 {
		return Note{}, fault.New(fault.Invalid, "at most 16 tags")
	}
	n := Note{ID: "mem-" + strings.ToLower(rand.Text()[:8]), Text: text, Tags: tags, Created: time.Now().UTC().Truncate(time.Second)}
	return n, s.notes.Update(func(notes []Note) ([]Note, error) {
		if len(notes) >= MaxNotes {
			return nil, fault.New(fault.Exhausted, "there are %d notes, which is as many as there may be; delete some", len(notes))
		}
		return append(notes, n), nil
	})
}

// Delete removes a note.
func (s *Store) Delete(id string) error {
	return s.notes.Update(func(notes []Note) ([]Note, error) {
		i := slices.IndexFunc(notes, func(n Note) bool { return n.ID == id })
		if i < 0 {
			return nil, fault.New(fault.NotFound, "there is no note %q", id)
		}
		return slices.Delete(notes, i, i+1), nil
	})
}

// Search returns the notes that have words of a query in them, those with the most first,
// the newest first among equals. No words mean all notes.
func (s *Store) Search(query string, limit int) ([]Note, error) {
	notes, err := s.All()
	if err != nil {
		return nil, err
	}
	slices.Reverse(notes)
	words := strings.Fields(strings.ToLower(query))
	if len(words) > 0 {
		score := map[string]int{}
		for _, n := range notes {
			in := strings.ToLower(n.Text + " " + strings.Join(n.Tags, " "))
			for _, w := range words {
				if strings.Contains(in, w) {
					score[n.ID]++
				}
			}
		}
		notes = slices.DeleteFunc(notes, func(n Note) bool { return score[n.ID] == 0 })
		slices.SortStableFunc(notes, func(a, b Note) int { return score[b.ID] - score[a.ID] })
	}
	return notes[:min(limit, len(notes))], nil
}

// All returns the notes, oldest first.
func (s *Store) All() ([]Note, error) { return s.notes.Load() }
