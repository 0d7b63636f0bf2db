package ram

import (
	"errors"
	"testing"
)

// TestCustody goes through all that can happen to a memory in each of its states.
func TestCustody(t *testing.T) {
	busy := errors.New("somebody writes to it")
	seal := func() error { return nil }
	states := map[string]func(c *Custody){
		"held":    func(*Custody) {},
		"free":    func(c *Custody) { c.Free() },
		"taken":   func(c *Custody) { c.Free(); _ = c.Take() },
		"back":    func(c *Custody) { c.Free(); _ = c.Take(); c.Free() },
		"shared":  func(c *Custody) { c.Free(); _ = c.Share(seal) },
		"spoiled": func(c *Custody) { c.Spoil() },
		"closed":  func(c *Custody) { c.Close() },
		"busy":    func(c *Custody) { c.Free(); _ = c.Share(func() error { return busy }) },
		"late":    func(c *Custody) { c.Free(); c.Spoil() }, // it has ended, and does not go on
		"dead":    func(c *Custody) { c.Spoil(); c.Free() },
		"sealed":  func(c *Custody) { c.Free(); _ = c.Share(seal); c.Spoil(); c.Free() },
	}
	type can struct{ check, share, take bool }
	for name, want := range map[string]can{
		"held":    {true, false, false},
		"free":    {true, true, true},
		"taken":   {true, false, false},
		"back":    {true, true, true},
		"shared":  {true, true, false},
		"spoiled": {false, false, false},
		"closed":  {false, false, false},
		"busy":    {true, true, true},
		"late":    {true, true, true},
		"dead":    {false, false, false},
		"sealed":  {true, true, false},
	} {
		try := func(do func(c *Custody) error) bool {
			var c Custody
			states[name](&c)
			return do(&c) == nil
		}
		got := can{
			try((*Custody).Check),
			try(func(c *Custody) error { return c.Share(seal) }),
			try((*Custody).Take),
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	var c Custody
	if !c.Close() || c.Close() {
		t.Error("closed twice")
	}
}
