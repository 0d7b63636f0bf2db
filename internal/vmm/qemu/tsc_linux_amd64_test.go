package qemu

import "testing"

func TestSteady(t *testing.T) {
	for _, c := range []struct {
		name, cpuinfo, source string
		want                  bool
	}{
		{"a CPU that says so", "flags\t\t: fpu tsc constant_tsc nopl\n", "kvm-clock\n", true},
		{"an emulated CPU whose kernel trusts it", "flags\t\t: fpu tsc nopl\n", "tsc\n", true},
		{"a kernel that does not", "flags\t\t: fpu tsc nopl\n", "acpi_pm\n", false},
		{"a kernel that does not say", "flags\t\t: fpu tsc nopl\n", "", false},
		{"the flag of another thing", "flags\t\t: fpu nonconstant_tsc_x\n", "tsc-early\n", false},
	} {
		if got := steady([]byte(c.cpuinfo), []byte(c.source)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
