//go:build integration

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// quiet is a teller that does as little as servers do while nobody asks them: it listens,
// and ticks.
var quiet = strings.ReplaceAll(teller, "time.sleep(.05)", "time.sleep(.5)")

// TestScaleToZero: instances with servers fall asleep by themselves until there is no VMM any
// more and the daemon does nothing; each answers its next client, or its schedule, from the
// memory that it had.
func TestScaleToZero(t *testing.T) {
	h := newHost(t)
	n := stress(3, 20)
	urls, born := make([]string, n), make([]string, n)
	for i := range urls {
		soon := int64(1)
		made, _, err := h.client().Launch(t.Context(), api.CreateRequest{
			Handle: fmt.Sprint("web", i), Command: []string{"python3", "-uc", quiet}, PauseAfterS: &soon, StopAfterS: &soon, MemoryMB: 256,
			Expose: []api.ExposeRequest{{Port: 80}},
		})
		if err != nil {
			t.Fatal(err)
		}
		urls[i] = made.Endpoints[0].URL()
		born[i] = h.ask(urls[i]).born
	}
	asleep := func() bool { return len(h.machines()) == 0 }
	eventually(t, "all are asleep", asleep)
	for i := range urls {
		if info := h.info(fmt.Sprint("web", i)); !info.Hibernated {
			t.Errorf("web%d is %s", i, info.State)
		}
	}
	// One tick of the kernel's clock, which is what it counts in, is a tenth of it in short form.
	span := stress(5*time.Second, time.Minute)
	if used, most := h.cpu(h.daemon(), span), span/500+20*time.Millisecond; used > most {
		t.Errorf("the daemon used %v of CPU in %v", used, span)
	} else {
		t.Logf("the daemon used %v of CPU in %v", used, span)
	}
	var wg sync.WaitGroup
	for i := range urls {
		wg.Go(func() {
			if got := h.ask(urls[i]); got.born != born[i] || got.late.Abs() > time.Minute {
				t.Errorf("web%d: %+v, it was born %s", i, got, born[i])
			}
		})
	}
	wg.Wait()
	eventually(t, "all are asleep again", asleep)

	// What is due wakes it too.
	h.ok("instance", "schedule", "web0", "--at", "+1s", "--", "sh", "-c", "echo the schedule was here; exit 3")
	eventually(t, "the schedule has run", func() bool { return strings.Contains(h.ok("logs", "web0"), "ended: exit 3") })
	if logs := h.ok("logs", "--exec", "web0"); !strings.Contains(logs, "the schedule was here") {
		t.Errorf("its output is not in the log:\n%s", logs)
	}
	if got := h.ask(urls[0]); got.born != born[0] {
		t.Error("the schedule did not wake it where it was")
	}
	for i := range urls {
		h.ok("instance", "delete", fmt.Sprint("web", i))
	}
}

// TestRunIsHeld: a command holds its VM awake, however little it does.
func TestRunIsHeld(t *testing.T) {
	h := newHost(t)
	begun := time.Now()
	seconds := stress(7, 200)
	r := h.try("run", "--pause-after", stress("1s", "5s"), "--stop-after", "1s", "--", "sh", "-c", fmt.Sprintf("sleep %d; echo well", seconds))
	if r.status != 0 || r.stdout != "well\n" || time.Since(begun) < time.Duration(seconds)*time.Second {
		t.Errorf("after %v: %+v", time.Since(begun), r)
	}
	if log := h.log(); strings.Contains(log, "to=pausing") {
		t.Errorf("it was paused:\n%s", log)
	}
}
