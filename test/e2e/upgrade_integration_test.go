//go:build integration

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/xfeldman/aegisvm/api"
)

// release makes a folder with the programs of another release of AegisVM: those of this
// one, with another PID 1 for guests.
func (h *host) release(harness string) string {
	h.t.Helper()
	dir := h.t.TempDir()
	programs, err := filepath.Glob(filepath.Join(h.bin, "*"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, p := range programs {
		if err := os.Link(p, filepath.Join(dir, filepath.Base(p))); err == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(p)), load(h.t, p), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	replace(h.t, filepath.Join(dir, "aegis-harness"), load(h.t, harness))
	if err := os.Chmod(filepath.Join(dir, "aegis-harness"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// harnessOf builds a PID 1 that says it is of a version, with some files of the source
// changed: old is replaced by another text.
func harnessOf(t *testing.T, version string, changes ...change) string {
	t.Helper()
	dir := t.TempDir()
	overlay := map[string]map[string]string{"Replace": {}}
	for _, c := range changes {
		path, err := filepath.Abs(filepath.Join("..", "..", c.file))
		if err != nil {
			t.Fatal(err)
		}
		text := string(load(t, path))
		if strings.Count(text, c.old) != 1 {
			t.Fatalf("%s has %q %d times", c.file, c.old, strings.Count(text, c.old))
		}
		changed := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(changed, []byte(strings.Replace(text, c.old, c.with, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][path] = changed
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "aegis-harness")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"),
		"-ldflags", "-s -w -X github.com/xfeldman/aegisvm/internal/buildinfo.version="+version, "-o", out, "../../cmd/aegis-harness")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a harness: %v\n%s", err, out)
	}
	return out
}

// change is a text of a source file that another release has otherwise.
type change struct{ file, old, with string }

// upgrade replaces the daemon by that of another release, as a package does.
func (h *host) upgrade(bin string) {
	h.t.Helper()
	h.signal(syscall.SIGTERM)
	h.bin = bin
	h.up()
}

// TestUpgraded has instances whose PID 1 is of an older release, one awake, one asleep. The
// new daemon goes on with both as they were, and tells of what release they are; what starts
// from then on is of its own.
func TestUpgraded(t *testing.T) {
	h := newHome(t)
	ours := h.bin
	h.bin = h.release(harnessOf(t, "0.9.0"))
	h.up()
	awake, asleep := h.teller("awake"), h.teller("asleep")
	toldAwake, toldAsleep := h.ask(awake), h.ask(asleep)
	h.hibernate("asleep")
	h.upgrade(ours)
	toldAwake = h.goesOn(awake, toldAwake)
	h.goesOn(asleep, toldAsleep)
	for _, name := range []string{"awake", "asleep"} {
		if got := h.info(name).HarnessVersion; got != "0.9.0" {
			t.Errorf("%s has a harness of version %q", name, got)
		}
		if out := h.ok("exec", name, "--", "echo", "well"); out != "well\n" {
			t.Errorf("exec in %s prints %q", name, out)
		}
	}
	h.hibernate("awake") // by this release, of that one's PID 1
	h.goesOn(awake, toldAwake)
	h.ok("instance", "restart", "awake")
	if now := h.ask(awake); now.born == toldAwake.born {
		t.Error("a restart did not start the program anew")
	}
	if got := h.info("awake").HarnessVersion; got == "0.9.0" || got == "" {
		t.Errorf("after a restart the harness is of version %q", got)
	}
	h.ok("instance", "delete", "awake")
	h.ok("instance", "delete", "asleep")
}

// estranged is a PID 1 that has no version of the protocol in common with the second host
// that says hello, nor with those after it.
var estranged = change{
	"internal/guest/server/control.go",
	"	version := min(h.Version, guestproto.Version)\n",
	`	version := min(h.Version, guestproto.Version)
	if !h.Prepare {
		if met {
			version = -1
		}
		met = true
	}
`,
}

// TestForeignHarness has instances whose PID 1 shares no version of the protocol with the
// daemon: they come from a release that is too far from this one. Their programs cannot go
// on. Whoever looks is told so, and why; the next start is a new one.
func TestForeignHarness(t *testing.T) {
	h := newHome(t)
	ours := h.bin
	h.bin = h.release(harnessOf(t, "9.9.9", estranged, change{"internal/guest/server/dial.go", "var past = ", "var met bool\n\nvar past = "}))
	h.up()
	awake, asleep := h.teller("awake"), h.teller("asleep")
	toldAwake, toldAsleep := h.ask(awake), h.ask(asleep)
	h.hibernate("asleep")
	h.upgrade(ours)
	for _, of := range []struct {
		name, url string
		before    told
	}{{"awake", awake, toldAwake}, {"asleep", asleep, toldAsleep}} {
		if got := h.ask(of.url); got.born == of.before.born {
			t.Errorf("the program of %s goes on", of.name)
		}
		if lines := h.system(of.name); !slices.ContainsFunc(lines, func(l string) bool {
			return strings.Contains(l, "versions 1 to 1 of the protocol") && strings.Contains(l, "another version of AegisVM")
		}) {
			t.Errorf("the log of %s does not say why:\n%s", of.name, lines)
		}
		if i := h.info(of.name); i.State != api.StateRunning || i.HarnessVersion == "9.9.9" {
			t.Errorf("%s is %s, with a harness of version %q", of.name, i.State, i.HarnessVersion)
		}
		h.ok("instance", "delete", of.name)
	}
	h.clean()
}
