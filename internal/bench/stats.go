package bench

import (
	"math"
	"slices"
)

// median returns the middle of samples, of which there must be one.
func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// percentile returns the smallest sample that p percent of samples do not exceed. Of
// fewer than 100/(100-p) samples that is the largest.
func percentile(samples []float64, p float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(p / 100 * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// worst is the 99th percentile from the bad end: of a rate few samples are lower.
func worst(samples []float64, unit string) float64 {
	if moreIsBetter(unit) {
		negative := make([]float64, len(samples))
		for i, s := range samples {
			negative[i] = -s
		}
		return -percentile(negative, 99)
	}
	return percentile(samples, 99)
}

// moreIsBetter tells rates from what is waited for or used up.
func moreIsBetter(unit string) bool { return unit == rate }

// round leaves what a reader can use of a figure.
func round(v float64) float64 { return math.Round(v*1000) / 1000 }
