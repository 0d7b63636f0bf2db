package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
	"github.com/xfeldman/aegisvm/internal/schedule"
)

var update = flag.Bool("update", false, "write the database of this schema, and what is read from those of all")

// TestOlderDatabase opens databases as releases have left them, testdata/schema-N.sql, and
// reads all there is in them. What is read is in schema-N.golden. Such a file is written
// once, by go test -update with the first release of that schema, and is read by all later
// ones: neither a migration nor a change of what is kept as JSON may lose any of it.
func TestOlderDatabase(t *testing.T) {
	newest := filepath.Join("testdata", fmt.Sprintf("schema-%d.sql", len(migrations)))
	if _, err := os.Stat(newest); errors.Is(err, os.ErrNotExist) && *update {
		golden(t, newest, dump(t, furnished(t)))
	}
	files, err := filepath.Glob(filepath.Join("testdata", "schema-*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no older databases: %v", err)
	}
	if _, err := os.Stat(newest); err != nil {
		t.Errorf("schema %d has no database: go test ./internal/store -update", len(migrations))
	}
	for _, file := range files {
		s := restored(t, file)
		golden(t, strings.TrimSuffix(file, ".sql")+".golden", everything(t, s))
		if err := s.SaveInstance(t.Context(), record("new")); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestReleasedMigrations: steps that were released never change. The database of a release
// is the one that its steps make.
func TestReleasedMigrations(t *testing.T) {
	for n := range len(migrations) + 1 {
		file := filepath.Join("testdata", fmt.Sprintf("schema-%d.sql", n))
		then, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		db := raw(t)
		for _, step := range migrations[:n] {
			run(t, db, step)
		}
		for _, statement := range schema(t, db) {
			if !bytes.Contains(then, []byte(statement+";\n")) {
				t.Errorf("step %d or one before it has changed: %s has no\n%s", n, file, statement)
			}
		}
	}
}

// golden compares with a file, or writes it.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, got, 0o600)); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: read\n%s\nwant\n%s", path, got, want)
	}
}

// raw opens an empty database without a schema.
func raw(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "aegis.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, statements string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
}

// restored makes the database that a file describes, and opens it.
func restored(t *testing.T, file string) *Store {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "aegis.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, db, string(text))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

// schema returns the statements that have made a database, triggers last.
func schema(t *testing.T, db *sql.DB) (statements []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type = 'trigger', rowid")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // only read
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		statements = append(statements, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return statements
}

// dump returns statements that make the database of a Store again.
func dump(t *testing.T, s *Store) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, statement := range schema(t, s.db) {
		fmt.Fprintf(&out, "%s;\n", statement)
	}
	for _, table := range column(t, s.db, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid") {
		columns := column(t, s.db, fmt.Sprintf("SELECT 'quote(' || name || ')' FROM pragma_table_info('%s')", table))
		for _, row := range column(t, s.db, fmt.Sprintf("SELECT %s FROM %s", strings.Join(columns, " || ', ' || "), table)) {
			fmt.Fprintf(&out, "INSERT INTO %s VALUES (%s);\n", table, row)
		}
	}
	fmt.Fprintf(&out, "PRAGMA user_version = %d;\n", len(migrations))
	return out.Bytes()
}

func column(t *testing.T, db *sql.DB, query string) (values []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // only read
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

// everything is all that a Store returns, as JSON.
func everything(t *testing.T, s *Store) []byte {
	t.Helper()
	ctx, all := t.Context(), map[string]any{}
	for what, read := range map[string]func(context.Context) (any, error){
		"instances": func(ctx context.Context) (any, error) { return s.LoadInstances(ctx) },
		"secrets":   func(ctx context.Context) (any, error) { return s.Secrets(ctx, nil) },
		"tethers":   func(ctx context.Context) (any, error) { return s.LoadTethers(ctx) },
		"frames":    func(ctx context.Context) (any, error) { return s.Frames(ctx, older, message.Query{}) },
		"untaken":   func(ctx context.Context) (any, error) { return s.Untaken(ctx, older, 10) },
		"watermark": func(ctx context.Context) (any, error) { return s.Watermark(ctx, older, "host") },
		"marks":     func(ctx context.Context) (any, error) { return s.LoadMarks(ctx, older) },
		"schedules": func(ctx context.Context) (any, error) {
			entries, err := s.LoadSchedules(ctx)
			var out []string
			for _, e := range entries {
				out = append(out, fmt.Sprintf("%s %s at %s: %q, made %v, last %v, ran %v: %s %s", e.ID, e.Instance, e.When, e.Command, e.Created, e.Last, e.Ran, e.Exec, e.Result))
			}
			return out, err
		},
	} {
		got, err := read(ctx)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		all[what] = got
	}
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// older is an instance of an older release.
const older = "inst-0123456789a0123456789"

// furnished returns a database with something of everything in it.
func furnished(t *testing.T) *Store {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "aegis.db"))
	day := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	full := instance.Record{
		ID: older, Enabled: true, Created: day, Updated: day, Active: day, Stopped: day, Why: "it was stopped",
		Magic: guestproto.Magic{1, 2, 3}, Lease: instance.Lease{Reason: "build", Expires: day},
	}
	fill(reflect.ValueOf(&full.Spec).Elem())
	full.Spec.Handle, full.Spec.Ephemeral = "old", false
	bare := instance.Record{ID: older + "0", Spec: instance.Spec{Handle: "bare", Command: []string{"serve"}}, Created: day, Updated: day}
	for _, r := range []instance.Record{full, bare} {
		if err := s.SaveInstance(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	secret := sealed("KEY", "key-1", "nonce\x00and box")
	secret.Created, secret.Updated = day, day
	save(t, s, secret)
	said := entry(older, "m2", false)
	asked := entry(older, "m1", true)
	asked.Frame.Type, asked.Frame.TS, said.Frame.TS = api.FrameUserMessage, day, day
	appendTo(t, s, keepAll, asked, said)
	entry := schedule.Entry{ID: "sched-1", Instance: older, When: cron(t, "*/5 * * * 1-5", "Europe/Berlin"), Command: []string{"echo", "ü"}, Created: day, Last: day, Ran: day, Exec: "exec-1", Result: "exit 3"}
	once := schedule.Entry{ID: "sched-2", Instance: older, When: schedule.Once(day), Command: []string{"true"}, Created: day, Last: day}
	_, err := s.RaiseWatermark(t.Context(), older, "host", 1)
	for _, e := range []schedule.Entry{entry, once} {
		err = errors.Join(err, s.AddSchedule(t.Context(), e))
	}
	err = errors.Join(err, s.UpdateSchedule(t.Context(), entry), s.SaveMarks(t.Context(), older, map[string]time.Time{"daily": day}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill gives every field that can be told a value that is not zero.
func fill(v reflect.Value) {
	switch v.Kind() { //nolint:exhaustive // what else there is stays as it is
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}
