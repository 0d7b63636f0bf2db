package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

var _ instance.Store = (*Store)(nil)

// LoadInstances returns all instances, oldest first.
func (s *Store) LoadInstances(ctx context.Context) ([]instance.Record, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, spec, enabled, created_at, updated_at, active_at, stopped_at, why, magic, lease
		FROM instances ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("load instances: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var out []instance.Record
	for rows.Next() {
		r, err := scanInstance(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("load instances: %w", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load instances: %w", err)
	}
	return out, nil
}

func scanInstance(scan func(...any) error) (instance.Record, error) {
	var (
		r                                                     instance.Record
		spec, created, updated, active, stopped, magic, lease string
	)
	if err := scan(&r.ID, &spec, &r.Enabled, &created, &updated, &active, &stopped, &r.Why, &magic, &lease); err != nil {
		return r, err
	}
	err := errors.Join(
		json.Unmarshal([]byte(spec), &r.Spec), json.Unmarshal([]byte(lease), &r.Lease),
		parseTime(created, &r.Created), parseTime(updated, &r.Updated),
		parseTime(active, &r.Active), parseTime(stopped, &r.Stopped),
		r.Magic.UnmarshalText([]byte(magic)),
	)
	if err != nil {
		return r, fmt.Errorf("row of %s is damaged: %w", r.ID, err)
	}
	return r, nil
}

// SaveInstance implements instance.Store.
func (s *Store) SaveInstance(ctx context.Context, r instance.Record) error {
	spec, err := json.Marshal(r.Spec)
	if err != nil {
		return fmt.Errorf("save %s: %w", r.ID, err)
	}
	lease, err := json.Marshal(r.Lease)
	if err != nil {
		return fmt.Errorf("save %s: %w", r.ID, err)
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO instances
		(id, handle, spec, enabled, created_at, updated_at, active_at, stopped_at, why, magic, lease)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET handle = excluded.handle, spec = excluded.spec, enabled = excluded.enabled,
			updated_at = excluded.updated_at, active_at = excluded.active_at, stopped_at = excluded.stopped_at,
			why = excluded.why, magic = excluded.magic, lease = excluded.lease`,
		string(r.ID), r.Spec.Handle, string(spec), r.Enabled, formatTime(r.Created), formatTime(r.Updated),
		formatTime(r.Active), formatTime(r.Stopped), r.Why, r.Magic.String(), string(lease))
	if dup, ok := errors.AsType[*sqlite.Error](err); ok && dup.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		return fault.New(fault.Conflict, "the name %q is taken", r.Spec.Handle).WithHint("choose another --name")
	}
	if err == nil && r.Copy {
		err = s.saveCopy(ctx, string(r.ID))
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", r.ID, err)
	}
	return nil
}

// DeleteInstance implements instance.Store.
func (s *Store) DeleteInstance(ctx context.Context, id instance.ID) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM instances WHERE id = ?", string(id)); err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	return nil
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func parseTime(s string, t *time.Time) error {
	if s == "" {
		*t = time.Time{}
		return nil
	}
	v, err := time.Parse(time.RFC3339Nano, s)
	*t = v
	return err
}
