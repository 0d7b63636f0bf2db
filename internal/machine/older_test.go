package machine

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestOlderManifests reads what releases have left of machines: every word of it means
// something to this one, and is written again as it was, whatever stands beside it now. The
// files are never rewritten: a change that does not read them loses machines that people
// have saved.
func TestOlderManifests(t *testing.T) {
	for name, v := range map[string]any{"saved-1.json": &manifest{}, "snapshot-1.json": &snapshotManifest{}, "disk-1.json": &disk{}} {
		then, err := os.ReadFile(filepath.Join("testdata", "older", name))
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(then))
		d.DisallowUnknownFields()
		if err := d.Decode(v); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		now, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if !within(value(t, then), value(t, now)) {
			t.Errorf("%s is read as\n%s\nand is\n%s", name, now, then)
		}
	}
}

func value(t *testing.T, data []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// within reports whether all of one JSON value is in another.
func within(part, whole any) bool {
	switch part := part.(type) {
	case map[string]any:
		all, ok := whole.(map[string]any)
		for k, v := range part {
			ok = ok && within(v, all[k])
		}
		return ok
	case []any:
		all, ok := whole.([]any)
		ok = ok && len(all) == len(part)
		for i := range part {
			ok = ok && within(part[i], all[i])
		}
		return ok
	}
	return reflect.DeepEqual(part, whole)
}
