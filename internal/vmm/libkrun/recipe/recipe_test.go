package recipe

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestRecipe(t *testing.T) {
	want := &Recipe{
		Library: "libkrun.so.1", ID: "vm", VCPUs: 2, Memory: 512, Kernel: "/k", Format: ELF, Initrd: "/i", Cmdline: "quiet",
		Disks: []Disk{{Name: "base", Path: "/b", ReadOnly: true}}, MAC: []byte{2, 1, 2, 3, 4, 5}, Account: &Account{UID: 7, GID: 8},
		Console: 3, Life: 4, Ctl: 5, Net: 6,
	}
	b, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Read = %+v, %v, want %+v", got, err, want)
	}
	want.Cmdline = strings.Repeat("x", maxRecipe)
	if _, err := want.Encode(); fault.KindOf(err) != fault.TooLarge {
		t.Errorf("a recipe too long for a pipe: %v", err)
	}
	if _, err := Read(strings.NewReader("no recipe")); err == nil {
		t.Error("nonsense was read")
	}
}
