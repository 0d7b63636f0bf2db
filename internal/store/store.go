package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver "sqlite": SQLite translated to Go, no cgo

	"github.com/xfeldman/aegisvm/internal/fault"
)

// Store is an open database. Its methods may be called together.
type Store struct {
	db *sql.DB
}

// Open opens the database at path, makes it if need be (0600), and brings its schema
// up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	// SQLite would make it 0644, and its journal takes the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	// secure_delete: a secret that was deleted or replaced is overwritten, not only
	// forgotten.
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "secure_delete(ON)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(1) // one writer; reads are small, and WAL keeps no second journal
	s := &Store{db: db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(explain(err, path), db.Close())
	}
	return s, nil
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

// explain says what a person can do about a database that cannot be used.
func explain(err error, path string) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the database %s cannot be used", path).By(fault.Host).
		WithHint("check the disk; to begin anew, move the file away: VMs and workspaces stay where they are, instances are forgotten")
}

// migrate brings the schema from the version that the database has to the newest.
func (s *Store) migrate(ctx context.Context) error {
	var have int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	if have > len(migrations) {
		return fault.New(fault.Conflict, "the database is of a newer version of AegisVM (schema %d, this one knows %d)", have, len(migrations)).
			WithHint("use the newer version again, or another AEGIS_HOME")
	}
	for n := have; n < len(migrations); n++ {
		if err := s.apply(ctx, n); err != nil {
			return fmt.Errorf("migrate database to schema %d: %w", n+1, err)
		}
	}
	return nil
}

func (s *Store) apply(ctx context.Context, n int) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing is left to roll back after a commit
	if _, err := tx.ExecContext(ctx, migrations[n]); err != nil {
		return err
	}
	// A pragma takes no parameters; n is ours.
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n+1)); err != nil {
		return err
	}
	return tx.Commit()
}
