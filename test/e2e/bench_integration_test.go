//go:build integration

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/setup"
)

// TestBench measures one figure, next to a daemon that runs: it stands beside its floor, the
// daemon is not touched, and nothing is left. A figure beside 9p is taken too if the set-up
// cache has the kernel for it: this test fetches nothing.
func TestBench(t *testing.T) {
	h := newHost(t)
	before := h.footprint()
	figures := map[string]string{"resume_first_byte": "ms"}
	args := []string{"bench", "--json", "--only", "resume_first_byte"}
	if _, err := os.Stat(filepath.Join(os.Getenv(setup.CacheVariable), "kernel-9p", "kernel.json")); err == nil {
		figures["workspace_stat_9p"] = "ms"
		args = append(args, "--only", "workspace_stat_9p")
	}
	var report api.Bench
	if err := json.Unmarshal([]byte(h.ok(args...)), &report); err != nil {
		t.Fatal(err)
	}
	if report.Host == "" || report.Kernel == "" || report.Driver == "" || report.Accel == "" || report.Version == "" || len(report.Results) != len(figures) {
		t.Fatalf("%+v", report)
	}
	for _, r := range report.Results {
		if figures[r.Name] != r.Unit || r.N == 0 || r.Median <= 0 || r.P99 < r.Median || r.Floor.Name == "" || r.Floor.Median <= 0 {
			t.Errorf("%+v", r)
		}
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
