package agent

import (
	"bytes"
	"strings"
	"testing"
)

// TestMainOutsideOfAVM: it makes no /workspace on somebody's computer.
func TestMainOutsideOfAVM(t *testing.T) {
	var out bytes.Buffer
	if status := Main(&out, func(string) string { return "" }); status != 1 || !strings.Contains(out.String(), "no VM") {
		t.Errorf("status %d:\n%s", status, &out)
	}
	for _, name := range []string{"AEGIS_INSTANCE_ID", "AEGIS_AGENT_WORKSPACE"} {
		if err := inVM(func(asked string) string { return map[string]string{name: "x"}[asked] }); err != nil {
			t.Errorf("with %s: %v", name, err)
		}
	}
}
