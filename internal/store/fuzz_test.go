package store

import (
	"context"
	"database/sql"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzInstanceRow: a row that is not what was written is an error, or an instance that can
// be written and read again as the same.
func FuzzInstanceRow(f *testing.F) {
	for _, s := range [][5]string{
		{`{"Handle":"web","Command":["x"]}`, "2026-01-02T03:04:05Z", "", "", "{}"},
		{`{"Memory":-1,"Disk":9223372036854775807}`, "", "x", "00", `{"Expires":"2026-01-02T03:04:05Z"}`},
		{`[]`, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "zz", "null"},
		{`{"Expose":[{"Guest":65536}]}`, "", "", "", ""},
		{"null", "", "", "", "null"},
	} {
		f.Add(s[0], s[1], s[2], s[3], s[4])
	}
	s, err := Open(context.Background(), filepath.Join(f.TempDir(), "aegis.db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, spec, created, stopped, magic, lease string) {
		if magic == "" {
			magic = record("x").Magic.String()
		}
		row := func(dest ...any) error {
			for i, v := range []any{"inst-1", spec, int64(1), created, created, created, stopped, "why", magic, lease} {
				if err := assign(dest[i], v); err != nil {
					return err
				}
			}
			return nil
		}
		r, err := scanInstance(row)
		if err != nil {
			return
		}
		if err := s.SaveInstance(t.Context(), r); err != nil {
			return // such as a year that has no text
		}
		all, err := s.LoadInstances(t.Context())
		if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0].Spec, r.Spec) || all[0].Magic != r.Magic {
			t.Fatalf("%+v came back as %+v, %v", r, all, err)
		}
		if err := s.DeleteInstance(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	})
}

// assign puts a column's value where database/sql would.
func assign(dest, v any) error {
	d := reflect.ValueOf(dest).Elem()
	switch v := v.(type) {
	case string:
		d.SetString(v)
	case int64:
		d.SetBool(v != 0)
	default:
		return sql.ErrNoRows
	}
	return nil
}
