package tool

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/agent/listfile"
	"github.com/xfeldman/aegisvm/internal/cron"
)

// cronEntry is one entry of cron.json. The host reads the file, and sends the message at
// the times of the schedule, waking the machine for it.
type cronEntry struct {
	ID         string    `json:"id"`
	Schedule   string    `json:"schedule"`
	Message    string    `json:"message"`
	Session    string    `json:"session,omitempty"`
	OnConflict string    `json:"on_conflict,omitempty"`
	Enabled    bool      `json:"enabled"`
	CreatedAt  time.Time `json:"created_at"`
}

// Cron returns the tools that keep the schedule in the file at path.
func Cron(path string) []Tool {
	c := &cronFile{listfile.File[cronEntry]{Path: path, Max: cron.MaxFile}}
	id := field("string", "the id of the entry")
	return []Tool{
		{
			Name: "cron_create",
			Description: "Have a message sent to you at fixed times, also while this machine sleeps: it is woken. " +
				"The schedule has five fields: minute hour day-of-month month day-of-week, as in '0 8 * * 1-5', in the host's time zone.",
			Schema: object(
				"schedule*", field("string", "the five fields"),
				"message*", field("string", "what you will be told then; say all that you need to know, and whom to notify"),
				"id", field("string", "a name for it; default a random one"),
				"session", field("string", "the session on the channel cron that it is sent in; default its own"),
				"on_conflict", map[string]any{"type": "string", "enum": []string{"skip", "replace"}, "description": "what happens while the one before is still at work: this one is left out, or ends it; default skip"},
			),
			Run: c.create,
		},
		{Name: "cron_list", Description: "List the entries of the schedule.", Schema: object(), Run: c.list},
		{Name: "cron_delete", Description: "Delete an entry of the schedule.", Schema: object("id*", id), Run: c.change(cronDelete)},
		{Name: "cron_enable", Description: "Turn an entry of the schedule on.", Schema: object("id*", id), Run: c.change(cronEnable)},
		{Name: "cron_disable", Description: "Turn an entry of the schedule off, without deleting it.", Schema: object("id*", id), Run: c.change(cronDisable)},
	}
}

type cronFile struct{ listfile.File[cronEntry] }

type cronArgs struct {
	ID         string `json:"id"`
	Schedule   string `json:"schedule"`
	Message    string `json:"message"`
	Session    string `json:"session"`
	OnConflict string `json:"on_conflict"`
}

func (c *cronFile) create(_ context.Context, call Call) (Result, error) {
	args, err := read[cronArgs](call)
	if err != nil {
		return Result{}, err
	}
	s, expr, err := cron.Parse(args.Schedule)
	if err != nil {
		return Result{}, fmt.Errorf("%w; %s", err, cron.Form)
	}
	e := cronEntry{
		ID: args.ID, Schedule: expr, Message: args.Message, Session: args.Session,
		OnConflict: args.OnConflict, Enabled: true, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}
	if e.ID == "" {
		e.ID = "cron-" + strings.ToLower(rand.Text()[:8])
	}
	switch {
	case !cron.IsName(e.ID):
		return Result{}, errors.New("id: letters, digits and ._:- only, at most 64")
	case e.Session != "" && !cron.IsName(e.Session):
		return Result{}, errors.New("session: letters, digits and ._:- only, at most 64")
	case e.OnConflict != "" && e.OnConflict != "skip" && e.OnConflict != "replace":
		return Result{}, errors.New("on_conflict is skip or replace")
	case strings.TrimSpace(e.Message) == "" || len(e.Message) > cron.MaxMessage:
		return Result{}, fmt.Errorf("message is empty, or has over %d bytes; put long instructions into a file, and name it", cron.MaxMessage)
	}
	err = c.Update(func(entries []cronEntry) ([]cronEntry, error) {
		if slices.ContainsFunc(entries, func(o cronEntry) bool { return o.ID == e.ID }) {
			return nil, fmt.Errorf("there is an entry %q already; delete it first, or choose another id", e.ID)
		}
		if len(entries) >= cron.MaxEntries {
			return nil, fmt.Errorf("there are %d entries, which is as many as there may be; delete some", len(entries))
		}
		return append(entries, e), nil
	})
	if err != nil {
		return Result{}, err
	}
	next := s.Next(time.Now())
	if next.IsZero() {
		return text("created %s, but no such time will ever come", e.ID), nil
	}
	return text("created %s; the next time is %s by this machine's clock", e.ID, next.Format("Mon 2006-01-02 15:04 MST")), nil
}

func (c *cronFile) list(_ context.Context, call Call) (Result, error) {
	if _, err := read[struct{}](call); err != nil {
		return Result{}, err
	}
	entries, err := c.Load()
	if err != nil {
		return Result{}, err
	}
	if len(entries) == 0 {
		return text("there are no entries"), nil
	}
	out, err := json.MarshalIndent(entries, "", "  ")
	return Result{Text: string(out)}, err
}

type cronChange func([]cronEntry, int) []cronEntry

func cronDelete(es []cronEntry, i int) []cronEntry { return slices.Delete(es, i, i+1) }

func cronEnable(es []cronEntry, i int) []cronEntry {
	es[i].Enabled = true
	return es
}

func cronDisable(es []cronEntry, i int) []cronEntry {
	es[i].Enabled = false
	return es
}

func (c *cronFile) change(do cronChange) func(context.Context, Call) (Result, error) {
	return func(_ context.Context, call Call) (Result, error) {
		args, err := read[struct {
			ID string `json:"id"`
		}](call)
		if err != nil {
			return Result{}, err
		}
		err = c.Update(func(entries []cronEntry) ([]cronEntry, error) {
			i := slices.IndexFunc(entries, func(e cronEntry) bool { return e.ID == args.ID })
			if i < 0 {
				return nil, fmt.Errorf("there is no entry %q; see cron_list", args.ID)
			}
			return do(entries, i), nil
		})
		if err != nil {
			return Result{}, err
		}
		return text("done"), nil
	}
}
