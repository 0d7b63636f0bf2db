package schedule

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/cron"
)

// Reminder is an entry of an agent's: a message to it at times.
type Reminder struct {
	ID         string
	When       When
	Message    string
	Session    string // of the channel "cron"; the entry's own, if the agent names none
	OnConflict string // passed on: what the agent does if it is busy in the session
	Enabled    bool
}

// rawReminder is one as it stands in the file. created_at is the agent's own.
type rawReminder struct {
	ID         string `json:"id"`
	Schedule   string `json:"schedule"`
	Message    string `json:"message"`
	Session    string `json:"session"`
	OnConflict string `json:"on_conflict"`
	Enabled    *bool  `json:"enabled"`
}

// parseCronFile reads a cron.File: a list of entries, or an object whose entries they are.
// What is wrong with single ones is in bad, and leaves the others as they are; err says
// that it is no such file.
func parseCronFile(b []byte) (good []Reminder, bad []error, err error) {
	if len(b) > cron.MaxFile {
		return nil, nil, fmt.Errorf("it has over %d bytes", cron.MaxFile)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		var object struct {
			Entries []json.RawMessage `json:"entries"`
		}
		if json.Unmarshal(b, &object) != nil {
			return nil, nil, errors.New("it is not a JSON list of entries")
		}
		list = object.Entries
	}
	if len(list) > cron.MaxEntries {
		bad = append(bad, fmt.Errorf("of %d entries the first %d count", len(list), cron.MaxEntries))
		list = list[:cron.MaxEntries]
	}
	seen := map[string]bool{}
	for i, raw := range list {
		r, err := parseReminder(raw)
		if err == nil && seen[r.ID] {
			err = fmt.Errorf("another has the id %q", r.ID)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("entry %d: %w", i+1, err))
			continue
		}
		seen[r.ID] = true
		good = append(good, r)
	}
	return good, bad, nil
}

func parseReminder(b []byte) (Reminder, error) {
	var raw rawReminder
	if err := json.Unmarshal(b, &raw); err != nil {
		return Reminder{}, errors.New("it is not an entry") // the library's error quotes the file
	}
	r := Reminder{ID: raw.ID, Message: raw.Message, Session: raw.Session, OnConflict: raw.OnConflict, Enabled: raw.Enabled == nil || *raw.Enabled}
	if r.Session == "" {
		r.Session = r.ID
	}
	switch {
	case !cron.IsName(r.ID):
		return r, errors.New("its id is no name")
	case !cron.IsName(r.Session):
		return r, errors.New("its session is no name")
	case r.OnConflict != "" && !cron.IsName(r.OnConflict):
		return r, errors.New("its on_conflict is no name")
	case r.Message == "" || len(r.Message) > cron.MaxMessage || !utf8.ValidString(r.Message):
		return r, fmt.Errorf("its message is empty, or has over %d bytes", cron.MaxMessage)
	}
	var err error
	r.When, err = Parse(raw.Schedule, "")
	return r, err
}
