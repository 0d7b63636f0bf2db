package cli

import (
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

func TestTree(t *testing.T) {
	line := func(id, parent string) api.Instance {
		return api.Instance{ID: id, Handle: id, ParentID: parent, State: api.StateRunning, Enabled: true, Command: []string{"x"}}
	}
	var text strings.Builder
	for _, r := range grow([]api.Instance{line("d", "b"), line("b", "a"), line("c", "a"), line("a", ""), line("e", "gone")}) {
		r.draw(&text, "", "", "")
	}
	want := `a, running: x
├── b, running: x
│   └── d, running: x
└── c, running: x
e, running: x
`
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", text.String(), want)
	}
}
