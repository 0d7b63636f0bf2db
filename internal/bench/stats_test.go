package bench

import "testing"

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 1000}, 3.5},
	} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestMedianLeavesItsInput(t *testing.T) {
	in := []float64{3, 1, 2}
	if median(in); in[0] != 3 {
		t.Errorf("samples were sorted in place: %v", in)
	}
}

func TestWorst(t *testing.T) {
	hundred := make([]float64, 0, 200)
	for i := range 200 {
		hundred = append(hundred, float64(200-i)) // 200 to 1
	}
	for _, c := range []struct {
		name string
		in   []float64
		unit string
		want float64
	}{
		{"one", []float64{5}, ms, 5},
		{"few: the largest", []float64{1, 9, 2}, ms, 9},
		{"of 200 two are worse", hundred, ms, 198},
		{"of a rate the lowest", []float64{1, 9, 2}, rate, 1},
		{"of 200 rates two are worse", hundred, rate, 3},
	} {
		if got := worst(c.in, c.unit); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
