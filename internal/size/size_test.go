package size

import "testing"

func TestParse(t *testing.T) {
	for in, want := range map[string]Bytes{
		"512": 512 * MiB, "512M": 512 * MiB, "1g": GiB, "1.5GiB": GiB + GiB/2, "64kb": 64 * KiB, "2T": 2 * TiB, "0": 0,
	} {
		got, err := Parse(in, MiB)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, bad := range []string{"", "M", "-1", "+1", "1e3", "0x10", "nan", "inf", "99999999T", "12Q", "1__0", "2 T"} {
		if got, err := Parse(bad, MiB); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", bad, got)
		}
	}
}

func TestString(t *testing.T) {
	for in, want := range map[Bytes]string{0: "0 B", 512 * MiB: "512 MB", GiB + GiB/2: "1.5 GB", 8 * GiB: "8 GB", 1000: "1000 B"} {
		if got := in.String(); got != want {
			t.Errorf("%d.String() = %q, want %q", in, got, want)
		}
	}
}
