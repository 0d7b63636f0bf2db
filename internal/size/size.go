package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of memory or disk.
type Bytes int64

// Binary multiples.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// Parse reads what a user writes: a number with an optional suffix K, M, G or T
// (powers of 1024, also as KB or KiB, in any case). A bare number is in unit.
func Parse(s string, unit Bytes) (Bytes, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "b"), "i")
	mult := unit
	if n := len(t); n > 0 {
		if i := strings.IndexByte("kmgt", t[n-1]); i >= 0 {
			mult = KiB << (10 * i)
			t = t[:n-1]
		}
	}
	v, err := strconv.ParseFloat(t, 64)
	if err != nil || math.IsNaN(v) || v < 0 || strings.ContainsAny(t, "+-xpein_") {
		return 0, fmt.Errorf("%q is not a size: write a number with K, M, G or T, such as 512M", s)
	}
	b := v * float64(mult)
	if b >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large for a size", s)
	}
	return Bytes(b), nil
}

// String returns b in the largest unit that divides it well, such as "512 MB".
func (b Bytes) String() string {
	for _, u := range []struct {
		size Bytes
		name string
	}{{TiB, "TB"}, {GiB, "GB"}, {MiB, "MB"}, {KiB, "KB"}} {
		if b >= u.size {
			return strings.TrimSuffix(strconv.FormatFloat(float64(b)/float64(u.size), 'f', 1, 64), ".0") + " " + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + " B"
}

// MiB returns b in whole mebibytes, rounded down.
func (b Bytes) MiB() int64 { return int64(b / MiB) }
