package cloudhypervisor

import (
	"encoding/json"
	"strings"
	"testing"
)

// someState has the form that v53 writes, shortened.
const someState = `{"snapshots":{"cpu-manager":{"x":18446744073709551615},"memory-manager":{"snapshots":{},` +
	`"snapshot_data":{"state":"{\"memory_ranges\":{\"data\":[{\"gpa\":0,\"length\":4096}]},\"end\":18446744073709551615}"}}},"snapshot_data":{}}`

func TestWithoutDump(t *testing.T) {
	b, err := withoutDump([]byte(someState))
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	if !strings.Contains(got, `\"memory_ranges\":{\"data\":[]}`) || strings.Contains(got, "4096") {
		t.Errorf("the dump is there: %s", got)
	}
	if strings.Count(got, "18446744073709551615") != 2 {
		t.Errorf("numbers have changed: %s", got)
	}
	if again, err := withoutDump(b); err != nil || string(again) != got {
		t.Errorf("done twice: %s, %v", again, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"snapshots":{}}`, strings.Replace(someState, "memory_ranges", "ranges", 1), strings.Replace(someState, `{\"memory`, `\"memory`, 1)} {
		if b, err := withoutDump([]byte(bad)); err == nil {
			t.Errorf("%q became %q", bad, b)
		}
	}
}

func FuzzWithoutDump(f *testing.F) {
	f.Add([]byte(someState))
	f.Add([]byte(`{"snapshots":null}`))
	f.Add([]byte(`{"snapshots":{"memory-manager":{"snapshot_data":{"state":3}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := withoutDump(b)
		if err == nil && !json.Valid(out) {
			t.Errorf("%q became %q", b, out)
		}
	})
}

func FuzzEvents(f *testing.F) {
	f.Add("{\n  \"source\": \"vm\",\n  \"event\": \"rebooting\"\n}\n\n")
	f.Add("\"source\": \"vmm\"\n\"event\": \"shutdown\"\n")
	f.Add(strings.Repeat("x", 2*maxEvent) + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		rebooted := 0
		e := events{rebooted: func() { rebooted++ }}
		e.read(strings.NewReader(s))
		if rebooted > 1 || rebooted == 1 != e.has(eventReboot) {
			t.Errorf("rebooted %d times", rebooted)
		}
		if len(e.seen) > 2 {
			t.Errorf("%d events are kept", len(e.seen))
		}
	})
}

// TestEvents reads what v53 writes, from its middle on.
func TestEvents(t *testing.T) {
	one := func(source, event string) string {
		return "{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 1\n  },\n  \"source\": \"" + source + "\",\n  \"event\": \"" + event + "\",\n  \"properties\": null\n}\n\n"
	}
	var times int
	e := events{rebooted: func() { times++ }}
	all := one("vm", "booting") + one("vm", "rebooting") + one("vm", "rebooting") + one("virtio-device", "shutdown")
	e.read(strings.NewReader(all[20:]))
	if times != 1 || !e.has(eventReboot) || e.has(eventEnd) {
		t.Errorf("%d, %+v", times, e.seen)
	}
	e.read(strings.NewReader(one("vmm", "shutdown")))
	if !e.has(eventEnd) {
		t.Error("its end was not noted")
	}
}
