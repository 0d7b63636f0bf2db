package httpapi

import (
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// TestAnotherVMM asks for VMs on what the daemon does not run them on.
func TestAnotherVMM(t *testing.T) {
	c, _, _ := serve(t, &stubRunner{main: catMain})
	_, err := c.Run(t.Context(), api.RunRequest{Command: []string{"x"}, VMM: "another"})
	if fault.KindOf(err) != fault.Conflict || !errorContains(err, "not on another") || fault.HintOf(err) == "" {
		t.Errorf("run: %v (hint %q)", err, fault.HintOf(err))
	}
	a, err := c.Run(t.Context(), api.RunRequest{Command: []string{"x"}, VMM: "auto"})
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
}
