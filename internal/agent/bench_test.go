package agent

import (
	"errors"
	"testing"

	"github.com/xfeldman/aegisvm/internal/agent/settings"
	"github.com/xfeldman/aegisvm/internal/agent/tool"
)

// TestKitIsMadeOnce: one kit serves for as long as settings and tools are the same.
func TestKitIsMadeOnce(t *testing.T) {
	made := 0
	outfit := func(*settings.Settings, []tool.Tool) (kit, error) {
		made++
		return kit{maxTokens: made}, nil
	}
	one, other := &settings.Settings{}, &settings.Settings{}
	tools := func() []tool.Tool { return []tool.Tool{{Name: "a", Schema: map[string]any{"type": "object"}}} }
	a, b := tools(), tools()
	var ready bench
	for i, c := range []struct {
		s      *settings.Settings
		theirs []tool.Tool
		made   int
	}{{one, a, 1}, {one, a, 1}, {one, append([]tool.Tool(nil), a...), 1}, {other, a, 2}, {other, b, 3}, {other, nil, 4}, {other, nil, 4}} {
		if k, err := ready.kit(c.s, c.theirs, outfit); err != nil || k.maxTokens != c.made {
			t.Errorf("step %d: kit %d, %v; want %d", i, k.maxTokens, err, c.made)
		}
	}
	bad := errors.New("no key")
	if _, err := ready.kit(one, nil, func(*settings.Settings, []tool.Tool) (kit, error) { return kit{}, bad }); !errors.Is(err, bad) {
		t.Errorf("err = %v", err)
	}
	if k, err := ready.kit(other, nil, outfit); err != nil || k.maxTokens != 4 {
		t.Errorf("after a failure: kit %d, %v", k.maxTokens, err)
	}
}
