package client

import "testing"

func TestTetherQueryFromTheBeginning(t *testing.T) {
	if v := (TetherQuery{Stored: true}).values(); v.Get("after_seq") != "0" {
		t.Errorf("a stream of all that is stored asks %q", v.Encode())
	}
	if v := (TetherQuery{}).values(); v.Has("after_seq") {
		t.Errorf("a stream of what comes asks %q", v.Encode())
	}
}
