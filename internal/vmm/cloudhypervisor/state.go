package cloudhypervisor

import (
	"encoding/json"
	"fmt"
)

// fields are an object of which only some fields matter. The others stay as they are
// written: among them are numbers that no float holds.
type fields map[string]json.RawMessage

// rangesPath leads to the part of a state that says what memory was dumped with it. What
// follows the last of these is an object within a text.
var rangesPath = []string{"snapshots", "memory-manager", "snapshot_data"}

const (
	innerState  = "state"
	innerRanges = "memory_ranges"
	noRanges    = `{"data":[]}`
)

// withoutDump returns a state that says that no memory was dumped with it: its memory is
// elsewhere, and the VMM is not to look for it.
func withoutDump(state []byte) ([]byte, error) {
	out, err := change(state, rangesPath, func(data fields) error {
		var text string
		if err := json.Unmarshal(data[innerState], &text); err != nil {
			return err
		}
		inner := fields{}
		if err := json.Unmarshal([]byte(text), &inner); err != nil {
			return err
		}
		if inner[innerRanges] == nil {
			return fmt.Errorf("no %s", innerRanges)
		}
		inner[innerRanges] = json.RawMessage(noRanges)
		b, err := json.Marshal(inner)
		if err != nil {
			return err
		}
		data[innerState], err = json.Marshal(string(b))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("a state that is not understood: %w", err)
	}
	return out, nil
}

// change returns an object in which the one at the end of path was changed.
func change(object []byte, path []string, do func(fields) error) ([]byte, error) {
	f := fields{}
	if err := json.Unmarshal(object, &f); err != nil {
		return nil, err
	}
	if len(path) == 0 {
		if err := do(f); err != nil {
			return nil, err
		}
		return json.Marshal(f)
	}
	inner, err := change(f[path[0]], path[1:], do)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path[0], err)
	}
	f[path[0]] = inner
	return json.Marshal(f)
}
