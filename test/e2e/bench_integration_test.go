//go:build integration

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

// TestBench measures one figure, next to a daemon that runs: it stands beside its floor, the
// daemon is not touched, and nothing is left.
func TestBench(t *testing.T) {
	h := newHost(t)
	before := h.footprint()
	var report api.Bench
	if err := json.Unmarshal([]byte(h.ok("bench", "--json", "--only", "resume_first_byte")), &report); err != nil {
		t.Fatal(err)
	}
	if report.Host == "" || report.Kernel == "" || report.Driver == "" || report.Accel == "" || report.Version == "" || len(report.Results) != 1 {
		t.Fatalf("%+v", report)
	}
	r := report.Results[0]
	if r.Name != "resume_first_byte" || r.Unit != "ms" || r.N == 0 || r.Median <= 0 || r.P99 < r.Median || r.Floor.Name == "" || r.Floor.Median <= 0 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(h.home, "data", "bench")); !os.IsNotExist(err) {
		t.Errorf("its homes: %v", err)
	}
	if after := h.footprint(); after.processes != before.processes || after.instances != before.instances {
		t.Errorf("footprint %+v, before %+v", after, before)
	}
	if r := h.try("bench", "--only", "nonsense"); r.status != 2 {
		t.Errorf("a figure that there is not: status %d, %s", r.status, r.stderr)
	}
}
