package mcpserver

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestProgress: the first thing is told at once, of a burst the last, and silence is told
// of too. Numbers only grow.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		p := startProgress(func(n int, message string) { told = append(told, fmt.Sprint(n, " ", message)) })
		p.say("starting")
		synctest.Wait()
		for i := range 1000 {
			p.say("line %d", i)
		}
		time.Sleep(gap + time.Millisecond)
		time.Sleep(2*beat - gap)
		synctest.Wait()
		p.end()
		want := []string{"1 starting", "2 line 999", "3 line 999 (5 s)", "4 line 999 (10 s)"}
		if !reflect.DeepEqual(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
	})
}

// TestProgressOfNobody: a client that did not ask is told nothing.
func TestProgressOfNobody(t *testing.T) {
	var p *progress
	p.say("something")
	p.end()
	synctest.Test(t, func(*testing.T) {
		p := startProgress(func(int, string) { t.Error("told after the end") })
		p.end()
		p.say("late")
	})
}
