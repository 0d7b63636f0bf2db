package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/xfeldman/aegisvm/internal/secret"
)

// Secrets implements vault.Rows.
func (s *Store) Secrets(ctx context.Context, names []string) ([]secret.Sealed, error) {
	query, args := "SELECT name, key_id, created_at, updated_at, box FROM secrets ORDER BY name", []any(nil)
	if names != nil {
		list, err := json.Marshal(names)
		if err != nil {
			return nil, fmt.Errorf("load secrets: %w", err)
		}
		query = "SELECT name, key_id, created_at, updated_at, box FROM secrets WHERE name IN (SELECT value FROM json_each(?)) ORDER BY name"
		args = []any{string(list)}
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("load secrets: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var out []secret.Sealed
	for rows.Next() {
		var r secret.Sealed
		if r.Meta, err = scanSecret(rows, &r.Box); err != nil {
			return nil, fmt.Errorf("load secrets: %w", err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load secrets: %w", err)
	}
	return out, nil
}

// ListSecrets implements vault.Rows.
func (s *Store) ListSecrets(ctx context.Context) ([]secret.Meta, error) {
	return listSecrets(ctx, s.db)
}

func listSecrets(ctx context.Context, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
},
) ([]secret.Meta, error) {
	rows, err := db.QueryContext(ctx, "SELECT name, key_id, created_at, updated_at FROM secrets ORDER BY name")
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var out []secret.Meta
	for rows.Next() {
		m, err := scanSecret(rows)
		if err != nil {
			return nil, fmt.Errorf("list secrets: %w", err)
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	return out, nil
}

// scanSecret reads a row of name, key_id, created_at and updated_at, and what more
// there is into rest.
func scanSecret(row interface{ Scan(dest ...any) error }, rest ...any) (secret.Meta, error) {
	var (
		m                secret.Meta
		created, updated string
	)
	if err := row.Scan(append([]any{&m.Name, &m.KeyID, &created, &updated}, rest...)...); err != nil {
		return m, err
	}
	if err := errors.Join(parseTime(created, &m.Created), parseTime(updated, &m.Updated)); err != nil {
		return m, fmt.Errorf("row of %s is damaged: %w", m.Name, err)
	}
	return m, nil
}

// SaveSecret implements vault.Rows.
func (s *Store) SaveSecret(ctx context.Context, r secret.Sealed) (secret.Meta, error) {
	m, err := scanSecret(s.db.QueryRowContext(ctx, `INSERT INTO secrets (name, key_id, box, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET key_id = excluded.key_id, box = excluded.box, updated_at = excluded.updated_at
		RETURNING name, key_id, created_at, updated_at`,
		r.Name, r.KeyID, r.Box, formatTime(r.Created), formatTime(r.Updated)))
	if err != nil {
		return m, fmt.Errorf("save secret %s: %w", r.Name, err)
	}
	return m, nil
}

// DeleteSecret implements vault.Rows.
func (s *Store) DeleteSecret(ctx context.Context, name string) (existed bool, err error) {
	done, err := s.db.ExecContext(ctx, "DELETE FROM secrets WHERE name = ?", name)
	if err != nil {
		return false, fmt.Errorf("delete secret %s: %w", name, err)
	}
	n, err := done.RowsAffected()
	return n > 0, err
}

// ResealSecrets implements vault.Rows.
func (s *Store) ResealSecrets(ctx context.Context, reseal func(secret.Sealed) (secret.Sealed, error)) (int, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("seal secrets anew: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing is left to roll back after a commit
	all, err := listSecrets(ctx, tx)
	if err != nil {
		return 0, err
	}
	for _, m := range all { // one value in memory at a time
		if err := resealOne(ctx, tx, m, reseal); err != nil {
			return 0, fmt.Errorf("seal secret %s anew: %w", m.Name, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("seal secrets anew: %w", err)
	}
	// The journal still has what was sealed with the old key. If it cannot be emptied
	// now, the next checkpoint does it.
	_, _ = s.db.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return len(all), nil
}

func resealOne(ctx context.Context, tx *sql.Tx, m secret.Meta, reseal func(secret.Sealed) (secret.Sealed, error)) error {
	r := secret.Sealed{Meta: m}
	if err := tx.QueryRowContext(ctx, "SELECT box FROM secrets WHERE name = ?", m.Name).Scan(&r.Box); err != nil {
		return err
	}
	r, err := reseal(r)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE secrets SET key_id = ?, box = ? WHERE name = ?", r.KeyID, r.Box, m.Name)
	return err
}
