//go:build integration

package e2e

import (
	"bytes"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// hibernate puts an instance to sleep on disk.
func (h *host) hibernate(name string) {
	h.t.Helper()
	h.ok("instance", "stop", "--hibernate", name)
}

// system returns the system lines of an instance's log.
func (h *host) system(name string) []string {
	h.t.Helper()
	var lines []string
	for line := range strings.Lines(h.ok("logs", name)) {
		if strings.HasPrefix(line, "[system]") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestKilledWhileSaving kills the daemon, or the VMM, or both, at many points of saving.
// The program goes on where it was, or begins anew and the log says why. It never goes on
// from somewhere else.
func TestKilledWhileSaving(t *testing.T) {
	h := newHost(t)
	url := h.teller("web")
	last := h.ask(url)
	took := map[bool]time.Duration{} // of a save, by whether the machine owns its memory
	for _, owned := range []bool{false, true} {
		begin := time.Now()
		h.hibernate("web")
		took[owned] = time.Since(begin)
		last = h.goesOn(url, last)
	}
	owned, points := true, stress(8, 50)
	for i := range points {
		at := took[owned] * time.Duration(i%(points/2)) / time.Duration(points/2)
		victims := []string{"daemon", "VMM", "both"}[i%3]
		said := len(h.system("web"))
		pid := h.vmm()
		saving := h.aegis("instance", "stop", "--hibernate", "web")
		if err := saving.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(at)
		if victims != "daemon" {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		if victims != "VMM" {
			h.signal(syscall.SIGKILL)
		}
		_ = saving.Wait() // whatever it says
		if victims != "VMM" {
			h.up()
		}
		got := h.ask(url)
		switch {
		case got.born != last.born:
			if lines := h.system("web"); len(lines) <= said {
				t.Errorf("point %d, %s killed after %v: the program began anew, and nothing says why:\n%s", i, victims, at, h.ok("logs", "web"))
			}
			owned = false
		case got.count < last.count:
			t.Fatalf("point %d, %s killed after %v: it counted to %d, and now to %d", i, victims, at, last.count, got.count)
		default:
			owned = h.info("web").Hibernated || owned
		}
		if vmms := h.machines(); len(vmms) != 1 {
			t.Fatalf("point %d: VMMs %v", i, vmms)
		}
		last = got
	}
	h.hibernate("web")
	h.goesOn(url, last)
	h.ok("instance", "delete", "web")
}

// goesOn asks a teller that must be the run that it was.
func (h *host) goesOn(url string, before told) told {
	h.t.Helper()
	got := h.ask(url)
	if got.born != before.born || got.count < before.count {
		h.t.Fatalf("it is %+v after %+v", got, before)
	}
	return got
}

// TestSavingOnAFullDisk: what cannot be saved stays in memory, and goes on.
func TestSavingOnAFullDisk(t *testing.T) {
	h := newHome(t)
	instances := filepath.Join(h.home, "data", "instances")
	mount(t, instances, "size=450m")
	h.up()
	url := h.teller("box")
	last := h.ask(url)
	filler := filepath.Join(instances, "filler")
	for _, kind := range []string{"of a clone", "of a machine that owns its memory"} {
		fillUp(t, filler, 4<<20)
		r := h.try("instance", "stop", "--hibernate", "box")
		if r.status != 1 || !strings.Contains(r.stderr, "free some space") {
			t.Errorf("%s: status %d, %s", kind, r.status, r.stderr)
		}
		if info := h.info("box"); info.State != api.StatePaused || info.Hibernated {
			t.Errorf("%s: it is %s, hibernated %v", kind, info.State, info.Hibernated)
		}
		if left, err := filepath.Glob(filepath.Join(instances, "*", "*saved*")); err != nil || len(left) > 0 {
			t.Errorf("%s: left: %v, %v", kind, left, err)
		}
		last = h.goesOn(url, last)
		remove(t, filler)
		h.hibernate("box")
		last = h.goesOn(url, last)
	}
	h.ok("instance", "delete", "box")
}

// fillUp writes a file until so much is left where it is.
func fillUp(t *testing.T, path string, left int64) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, max(0, int64(fs.Bavail)*fs.Bsize-left)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSavedMemoryOfNoUse: a wake that cannot be is a start, and says so.
func TestSavedMemoryOfNoUse(t *testing.T) {
	h := newHost(t)
	url := h.teller("web")
	h.hibernate("web")
	last := h.ask(url)
	flip := func(path string) {
		data := load(t, path)
		data[len(data)/2] ^= 0xff
		replace(t, path, data)
	}
	saved := func(name string) string { return h.only("data/instances/*/saved/" + name) }
	cases := []struct {
		name  string
		owned bool // the memory is apart from the state
		spoil func()
	}{
		{"state changed", false, func() { flip(saved("state")) }},
		{"state cut off", false, func() { replace(t, saved("state"), load(t, saved("state"))[:1000]) }},
		{"memory changed", true, func() { spoilMemory(t, saved("memory")) }},
		{"memory missing", true, func() { remove(t, saved("memory")) }},
		{"manifest garbage", false, func() { replace(t, saved("manifest.json"), []byte("{")) }},
		{"manifest missing", false, func() { remove(t, saved("manifest.json")) }},
		{"disk written to", false, func() {
			now := time.Now()
			if err := os.Chtimes(h.only("data/instances/*/disk"), now, now); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for i, c := range cases {
		if i%2 == 1 && stress(true, false) {
			continue
		}
		if c.owned { // after its first wake
			h.hibernate("web")
			last = h.goesOn(url, last)
		}
		h.hibernate("web")
		said := len(h.system("web"))
		c.spoil()
		got := h.ask(url)
		if got.born == last.born {
			t.Errorf("%s: it woke", c.name)
		}
		lines := h.system("web")[said:]
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "the program starts anew") }) {
			t.Errorf("%s: the log does not say so:\n%s", c.name, lines)
		}
		last = got
	}
	h.ok("instance", "delete", "web")
}

// spoilMemory changes a byte that counts: an image has holes.
func spoilMemory(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // of a test
	b := make([]byte, 1<<20)
	for at := int64(64 << 20); ; at += int64(len(b)) {
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(b, func(c byte) bool { return c != 0 }); i >= 0 {
			if _, err := f.WriteAt([]byte{b[i] ^ 0xff}, at+int64(i)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestVMMUpgraded has memory that another version of QEMU saved. As long as nobody wakes the
// instance nothing is lost: that version, come back, wakes it.
func TestVMMUpgraded(t *testing.T) {
	h := newHost(t)
	url := h.teller("old")
	last := h.ask(url)
	version := regexp.MustCompile(`qemu \d+\.\d+;`)
	var ours []byte
	// From here it is as if an older version had saved what is saved now.
	older := func() {
		manifest := h.only("data/instances/*/saved/manifest.json")
		ours = load(t, manifest)
		theirs := version.ReplaceAll(ours, []byte("qemu 1.0;"))
		if bytes.Equal(theirs, ours) {
			t.Fatalf("no version in %s", ours)
		}
		replace(t, manifest, theirs)
	}
	h.ok("down")
	older()
	h.up()
	if info := h.info("old"); !info.Hibernated {
		t.Fatalf("it is %s", info.State)
	}
	h.ok("down")
	replace(t, h.only("data/instances/*/saved/manifest.json"), ours)
	h.up()
	last = h.goesOn(url, last)
	h.ok("down")
	older()
	h.up()
	if got := h.ask(url); got.born == last.born {
		t.Error("memory of another version woke")
	}
	if lines := h.system("old"); !slices.ContainsFunc(lines, func(l string) bool {
		return strings.Contains(l, "the saved memory cannot be used, the program starts anew") && strings.Contains(l, "does not fit")
	}) {
		t.Errorf("the log does not say so:\n%s", lines)
	}
	h.ok("instance", "delete", "old")
}

// TestTemplateChanged has the files of a template change under a daemon: the start that
// meets it boots, and says so; the next one is a clone again, of a new template.
func TestTemplateChanged(t *testing.T) {
	h := newHost(t)
	h.works()
	state := h.only("data/templates/*/state")
	data := load(t, state)
	data[len(data)/2] ^= 0xff
	replace(t, state, data)
	h.create("box", []string{"sleep", "100000"})
	if lines := h.system("box"); !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "the machine boots") }) {
		t.Errorf("the log does not say so:\n%s", lines)
	}
	h.ok("instance", "delete", "box")
	h.works()
	if made, dropped := strings.Count(h.log(), "msg=template "), strings.Count(h.log(), `msg="template dropped"`); made != 2 || dropped != 1 {
		t.Errorf("%d templates were made, %d dropped", made, dropped)
	}
}

// templateKept waits until the home's template is on disk.
func (h *host) templateKept() {
	h.t.Helper()
	for deadline := time.Now().Add(hang); ; time.Sleep(5 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(h.home, "data/templates/*/manifest.json")); len(found) == 1 { // the pattern is good
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatal("the template is not written")
		}
	}
}

// digests returns the digests of the files of all templates.
func (h *host) digests() map[string][32]byte {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.home, "data", "templates", "*", "*"))
	if err != nil || len(files) == 0 {
		h.t.Fatalf("templates: %v, %v", files, err)
	}
	sums := map[string][32]byte{}
	for _, f := range files {
		if filepath.Base(f) == "disk.image" {
			continue // of 8 GB, nearly all of them holes; each clone checks it
		}
		sum := sha256.New()
		in, err := os.Open(f)
		if err == nil {
			_, err = io.Copy(sum, in)
			_ = in.Close() // only read
		}
		if err != nil {
			h.t.Fatal(err)
		}
		sums[f] = [32]byte(sum.Sum(nil))
	}
	return sums
}
