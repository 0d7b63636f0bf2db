package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/schedule"
)

var _ schedule.Store = (*Store)(nil)

// LoadSchedules implements schedule.Store, oldest first.
func (s *Store) LoadSchedules(ctx context.Context) ([]schedule.Entry, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, instance_id, cron, zone, at, command, created_at, last, ran_at, exec_id, result
		FROM schedules ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("load schedules: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var out []schedule.Entry
	var bad []error
	for rows.Next() {
		e, err := scanSchedule(rows.Scan)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		out = append(out, e)
	}
	if err := errors.Join(append(bad, rows.Err())...); err != nil {
		return out, fmt.Errorf("load schedules: %w", err)
	}
	return out, nil
}

func scanSchedule(scan func(...any) error) (schedule.Entry, error) {
	var (
		e                                           schedule.Entry
		expr, zone, at, command, created, last, ran string
		moment                                      time.Time
	)
	if err := scan(&e.ID, &e.Instance, &expr, &zone, &at, &command, &created, &last, &ran, &e.Exec, &e.Result); err != nil {
		return e, err
	}
	err := errors.Join(
		json.Unmarshal([]byte(command), &e.Command),
		parseTime(at, &moment), parseTime(created, &e.Created), parseTime(last, &e.Last), parseTime(ran, &e.Ran),
	)
	if err == nil && expr != "" {
		e.When, err = schedule.Parse(expr, zone)
	} else {
		e.When = schedule.Once(moment)
	}
	if err != nil {
		return e, fmt.Errorf("row of %s is damaged: %w", e.ID, err)
	}
	return e, nil
}

// AddSchedule implements schedule.Store.
func (s *Store) AddSchedule(ctx context.Context, e schedule.Entry) error {
	command, err := json.Marshal(e.Command)
	if err != nil {
		return fmt.Errorf("save %s: %w", e.ID, err)
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO schedules
		(id, instance_id, cron, zone, at, command, created_at, last, ran_at, exec_id, result)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		string(e.ID), string(e.Instance), e.When.Expr(), e.When.Zone(), formatTime(e.When.At()), string(command),
		formatTime(e.Created), formatTime(e.Last), formatTime(e.Ran), e.Exec, e.Result)
	if bad, ok := errors.AsType[*sqlite.Error](err); ok && bad.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY {
		return fault.New(fault.NotFound, "there is no instance %q that stays", e.Instance).WithHint("see: aegis instance list")
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", e.ID, err)
	}
	return nil
}

// UpdateSchedule implements schedule.Store.
func (s *Store) UpdateSchedule(ctx context.Context, e schedule.Entry) error {
	_, err := s.db.ExecContext(ctx, "UPDATE schedules SET last = ?, ran_at = ?, exec_id = ?, result = ? WHERE id = ?",
		formatTime(e.Last), formatTime(e.Ran), e.Exec, e.Result, string(e.ID))
	if err != nil {
		return fmt.Errorf("save %s: %w", e.ID, err)
	}
	return nil
}

// DeleteSchedule implements schedule.Store.
func (s *Store) DeleteSchedule(ctx context.Context, id schedule.ID) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM schedules WHERE id = ?", string(id)); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

// LoadMarks implements schedule.Store.
func (s *Store) LoadMarks(ctx context.Context, id instance.ID) (map[string]time.Time, error) {
	var text string
	err := s.db.QueryRowContext(ctx, "SELECT marks FROM schedule_marks WHERE instance_id = ?", string(id)).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	marks := map[string]time.Time{}
	if err == nil {
		err = json.Unmarshal([]byte(text), &marks)
	}
	if err != nil {
		return nil, fmt.Errorf("load marks of %s: %w", id, err)
	}
	return marks, nil
}

// SaveMarks implements schedule.Store.
func (s *Store) SaveMarks(ctx context.Context, id instance.ID, marks map[string]time.Time) error {
	text, err := json.Marshal(marks)
	if err == nil {
		// Of an instance that is gone there is nothing to keep.
		_, err = s.db.ExecContext(ctx, `INSERT INTO schedule_marks (instance_id, marks)
			SELECT id, ? FROM instances WHERE id = ?
			ON CONFLICT (instance_id) DO UPDATE SET marks = excluded.marks`, string(text), string(id))
	}
	if err != nil {
		return fmt.Errorf("save marks of %s: %w", id, err)
	}
	return nil
}
