package qemu

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/xfeldman/aegisvm/internal/size"
)

// TestOlderRecord reads what a release has left of a machine that runs: the next daemon
// takes it over by this. The file is never rewritten.
func TestOlderRecord(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "older", "vmm-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := record{PID: 77, Start: 123456, Boot: "6f0ad1b3-0000-4000-8000-000000000000", Model: model{
		Shape: "microvm; tcg; cpu max; 256M", RAM: 9, Owner: true, Disks: map[string]size.Bytes{"disk": 8 << 30},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}
