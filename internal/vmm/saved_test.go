package vmm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestSavedMoves(t *testing.T) {
	s := Saved{Driver: "d", State: File{Path: "/old/state", Size: 3, Digest: "x"}, Memory: File{Path: "/old/memory"}}
	dir := t.TempDir()
	got := s.In(dir)
	if got.State.Path != filepath.Join(dir, "state") || got.Memory.Path != filepath.Join(dir, "memory") || s.State.Path != "/old/state" {
		t.Errorf("%+v of %+v", got, s)
	}
	if whole := (Saved{State: s.State, Whole: true}).In(dir); whole.Memory != (File{}) {
		t.Errorf("a file that is not there: %+v", whole.Memory)
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var again Saved
	if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("%+v came back as %+v, %v", got, again, err)
	}
	if err := got.Sync(); err == nil {
		t.Error("files that are not there were synced")
	}
	for _, path := range []string{got.State.Path, got.Memory.Path} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := got.Sync(); err != nil {
		t.Error(err)
	}
}
