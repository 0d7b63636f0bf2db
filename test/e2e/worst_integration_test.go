//go:build integration

package e2e

import (
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestWorstGuest has a guest do its worst, as root of its VM: to itself, to its log, to its
// workspace, to everything of the host that listens to it, and at last to the link itself. A
// neighbour is served all the while, the host is as it was, and the guest ends when its user
// says so.
func TestWorstGuest(t *testing.T) {
	before := interfaces(t)
	h := newHost(t)
	url := h.teller("quiet")
	first := h.ask(url)
	script, err := filepath.Abs("testdata/worst.py")
	if err != nil {
		t.Fatal(err)
	}
	workspace := t.TempDir()
	code, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(workspace, "worst.py"), code, 0o600); err != nil {
		t.Fatal(err)
	}
	calm := h.settled()
	memory := h.daemonMemory()
	h.ok("instance", "start", "--name", "worst", "--memory", "256", "--pause-after", "0", "--workspace", workspace, "--",
		"python3", "/workspace/worst.py", stress("8", "120"))
	most, answers := memory, 0
	serve := func(until string) {
		t.Helper()
		eventually(t, "the worst guest is through with "+until, func() bool {
			h.ask(url)
			answers++
			most = max(most, h.daemonMemory())
			_, err := os.Lstat(filepath.Join(workspace, until))
			return err == nil || until == "linked" && h.info("worst").State == "stopped"
		})
	}
	serve("done")
	serve("linked")
	deeds(t, filepath.Join(workspace, "linked"))
	if last := h.ask(url); last.born != first.born {
		t.Error("the neighbour was started again")
	}
	t.Logf("%d answers of the neighbour; the daemon grew from %d to %d MB", answers, memory>>20, most>>20)
	const grown = 200 << 20 // what all limits of one guest add up to, with the collector's slack
	if most-memory > grown {
		t.Errorf("the daemon grew by %d MB", (most-memory)>>20)
	}
	if size := logsOf(t, filepath.Join(h.home, "data", "instances")); size > 200<<20 {
		t.Errorf("logs take %d MB", size>>20)
	}
	if fi, err := os.Stat(filepath.Join(h.home, "data", "aegisd.log")); err != nil || fi.Size() > 16<<20 {
		t.Errorf("the daemon's log: %v, %v", fi, err)
	}
	h.ok("instance", "stop", "worst")
	h.ok("instance", "delete", "worst")
	if after := h.settled(); after.processes != calm.processes || after.instances != calm.instances || after.files > calm.files+8 {
		t.Errorf("footprint %+v before, %+v after", calm, after)
	}
	h.ask(url)
	h.ok("instance", "delete", "quiet")
	t.Run("host", func(t *testing.T) {
		if after := interfaces(t); !reflect.DeepEqual(before, after) {
			t.Errorf("interfaces %v before, %v after", before, after)
		}
	})
}

// deeds checks that the guest did each of its deeds.
func deeds(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var done map[string]int
	if err := json.Unmarshal(b, &done); err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", done)
	if why, err := os.ReadFile(filepath.Join(filepath.Dir(path), "error")); err == nil {
		t.Errorf("the link was not written to:\n%s", why)
	}
	for what, times := range done {
		if times == 0 {
			t.Errorf("it did not try %s", what)
		}
	}
}

// logsOf returns the bytes of all logs below a folder.
func logsOf(t *testing.T, dir string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(path) == "disk" {
			return nil //nolint:nilerr // it has gone meanwhile
		}
		if fi, err := d.Info(); err == nil {
			total += fi.Size()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return total
}

// interfaces lists the host's network interfaces with their addresses.
func interfaces(t *testing.T) map[string][]string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			out[i.Name] = append(out[i.Name], a.String())
		}
	}
	return out
}
