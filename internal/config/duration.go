package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParseDuration reads what a user writes: 90s, 5m, 1h30m, 7d; a bare number is in
// seconds.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write a number with s, m, h or d, such as 90s", s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		return seconds(days, 24*60*60, bad)
	}
	if d, err := seconds(s, 1, bad); err == nil {
		return d, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || strings.HasPrefix(s, "+") {
		return 0, bad
	}
	return d, nil
}

func seconds(s string, each float64, bad error) (time.Duration, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.Trim(s, "0123456789.") != "" {
		return 0, bad
	}
	d := n * each * float64(time.Second)
	if d >= math.MaxInt64 {
		return 0, bad
	}
	return time.Duration(d), nil
}
