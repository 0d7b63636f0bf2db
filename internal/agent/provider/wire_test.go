package provider

import (
	"slices"
	"testing"
)

// TestWireEncodesOnce: tools are made once for as long as they are the same.
func TestWireEncodesOnce(t *testing.T) {
	made := 0
	one := func(t Tool) string { made++; return "<" + t.Name + ">" }
	var w wire[string]
	tools := []Tool{{Name: "a"}, {Name: "b"}}
	for range 3 {
		if got := w.of(tools, one); !slices.Equal(got, []string{"<a>", "<b>"}) {
			t.Errorf("got %q", got)
		}
	}
	if made != 2 {
		t.Errorf("%d tools were made", made)
	}
	if got := w.of(tools[:1], one); !slices.Equal(got, []string{"<a>"}) {
		t.Errorf("fewer: %q", got)
	}
	if got := w.of([]Tool{{Name: "c"}}, one); !slices.Equal(got, []string{"<c>"}) {
		t.Errorf("others: %q", got)
	}
	if got := w.of(nil, one); got != nil {
		t.Errorf("none: %q", got)
	}
}
