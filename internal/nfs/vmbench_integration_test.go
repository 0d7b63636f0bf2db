//go:build integration

package nfs_test

import (
	_ "embed"
	"os"
	"testing"
)

//go:embed testdata/bench.py
var benchScript string

// TestVMSpeed shows what operations cost on the workspace, beside the instance's own
// disk. Nothing is decided by it; aegis bench has such figures too.
func TestVMSpeed(t *testing.T) {
	v, _ := onWorkspace(t)
	files, mb := "50", "16"
	if os.Getenv("AEGIS_STRESS") != "" {
		files, mb = "500", "200"
	}
	for _, where := range []string{"/workspace", "/root", "/workspace", "/root"} {
		out, status := v.start(t, "python3", "-c", benchScript, where, files, mb)()
		if status != 0 {
			t.Fatal(out)
		}
		t.Logf("%s: %s", where, out)
	}
	t.Log(v.must(t, `awk '/workspace/{p=1} /device/ && !/workspace/{p=0} p && /^\t *[A-Z]+: [1-9]/{print $1,$2, "q",$7/$2,"rtt",$8/$2,"ex",$9/$2}' /proc/self/mountstats`))
}
