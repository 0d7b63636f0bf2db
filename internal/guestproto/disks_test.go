package guestproto

import "testing"

func TestDiskDevice(t *testing.T) {
	for _, c := range []struct{ line, name, want string }{
		{"quiet aegis.disks=base,disk,tools aegis.magic=00", "base", "/dev/vda"},
		{"quiet aegis.disks=base,disk,tools aegis.magic=00", "tools", "/dev/vdc"},
		{"aegis.disks=base", "disk", ""},
		{"aegis.disks=", "disk", ""},
		{"quiet", "disk", ""},
	} {
		if got, ok := DiskDevice(c.line, c.name); got != c.want || ok != (c.want != "") {
			t.Errorf("DiskDevice(%q, %q) = %q, %v", c.line, c.name, got, ok)
		}
	}
}
