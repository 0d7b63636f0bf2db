package api

// Bench is what `aegis bench --json` prints: figures of this host, each beside its floor
// from the same run. Floors say what is left once AegisVM is taken away; ratios of the two
// can be compared between hosts, and between busy times and idle ones.
type Bench struct {
	Host    string        `json:"host"`    // system, processors and memory, for people
	Kernel  string        `json:"kernel"`  // of the guests, as uname -r says
	Driver  string        `json:"driver"`  // and the version of its VMM, such as "qemu 7.2.22"
	Accel   string        `json:"accel"`   // "kvm", "hvf", "tcg"
	Version string        `json:"version"` // of AegisVM
	Results []BenchResult `json:"results"`
}

// BenchResult is one figure.
type BenchResult struct {
	Name   string     `json:"name"`
	Unit   string     `json:"unit"` // "ms", "MB", or "MB/s", of which more is better
	Median float64    `json:"median"`
	P99    float64    `json:"p99"` // the worst that 99 of 100 samples come to
	N      int        `json:"n"`   // samples
	Floor  BenchFloor `json:"floor"`
}

// BenchFloor is what a figure is measured against, in the figure's unit.
type BenchFloor struct {
	Name   string  `json:"name"`
	Median float64 `json:"median"`
}

// Ratio returns how many times its floor a figure is; 0 where there is no floor.
func (r BenchResult) Ratio() float64 {
	if r.Floor.Median == 0 {
		return 0
	}
	return r.Median / r.Floor.Median
}
