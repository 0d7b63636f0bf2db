//go:build integration

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// kitFolder is the example that docs/KITS.md walks through.
const kitFolder = "../../examples/kit"

// TestKit is the guide of docs/KITS.md, and what becomes of it: its program is brought into
// the VM and stays there over sleep, copies and daemons; the one beside it is never two.
func TestKit(t *testing.T) {
	folder, err := filepath.Abs(kitFolder)
	if err != nil {
		t.Fatal(err)
	}
	h := newHome(t, "PATH="+folder+":"+os.Getenv("PATH"))
	if out := h.ok("kit", "list"); strings.Contains(out, "hello") {
		t.Errorf("before it is there: %s", out)
	}
	manifest, err := os.ReadFile(filepath.Join(folder, "hello.json"))
	if err != nil {
		t.Fatal(err)
	}
	kits := filepath.Join(h.home, "kits")
	if err := os.Mkdir(kits, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kits, "hello.json"), manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := h.ok("kit", "list"); !strings.Contains(out, "hello  1        ok") {
		t.Errorf("kit list: %s", out)
	}
	h.ok("instance", "start", "--name", "hi", "--kit", "hello")
	says := func(name, line string) {
		t.Helper()
		eventually(t, name+" says "+line, func() bool { return strings.Contains(h.ok("logs", name), line) })
	}
	says("hi", "hello, world")
	says("hi", "I run beside hi")
	says("hi", "I wait for: aegis secret set HELLO_TOKEN")
	h.ok("secret", "set", "HELLO_TOKEN", tokenOfSidecar)
	says("hi", "I have my token")
	h.hidden("hi")
	brought := func(name string) {
		t.Helper()
		if out := h.ok("exec", name, "--", "sh", "-c", "command -v hello-agent; tail -1 $(command -v hello-agent)"); out != "/run/aegis/host/bin/hello-agent\nexec sleep 1000000\n" {
			t.Errorf("%s has %q", name, out)
		}
	}
	brought("hi")
	if r := h.try("run", "--", "sh", "-c", "echo $PATH; ls /run/aegis/host/bin"); strings.Contains(r.stdout, "hello-agent") {
		t.Errorf("a VM without the kit has it: %q", r.stdout)
	}

	first := h.beside("hi")
	h.ok("instance", "stop", "--hibernate", "hi")
	if again := h.beside("hi"); again != first {
		t.Errorf("asleep it has %d beside it, awake %d", again, first)
	}
	brought("hi")
	h.ok("instance", "fork", "hi", "--name", "copy")
	brought("copy")
	says("copy", "I run beside copy")
	says("copy", "I wait for") // a copy asks for no secrets by itself
	if h.beside("copy") == h.beside("hi") {
		t.Error("two instances have one sidecar")
	}
	h.ok("instance", "delete", "copy")

	h.signal(syscall.SIGKILL)
	eventually(t, "the sidecar has gone with its daemon", func() bool { return !alive(first) })
	h.up()
	eventually(t, "another runs", func() bool { return h.info("hi").GatewayRunning })
	if h.beside("hi") == first {
		t.Error("it is the same")
	}
	brought("hi")
	h.ok("instance", "delete", "hi")
	if _, err := os.Stat(filepath.Join(kits, "hi")); !os.IsNotExist(err) {
		t.Errorf("its files: %v", err)
	}
}

// tokenOfSidecar is a secret that only a sidecar is given.
const tokenOfSidecar = "t0ken-0f-the-sidecar"

// hidden checks that the secret of a sidecar is nowhere in the guest, in what the API
// answers, in arguments and environments of processes, and in files.
func (h *host) hidden(name string) {
	h.t.Helper()
	places := map[string]string{
		"the guest": h.ok("exec", name, "--", "sh", "-c", `cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline; find /run /workspace /tmp /root /etc /var/log -xdev -type f -exec cat {} + 2>/dev/null; env; true`),
		"info":      h.ok("instance", "info", name, "--json"),
		"the log":   h.ok("logs", name, "--exec"),
		"secrets":   h.ok("secret", "list"),
	}
	h.eachProcess(func(pid int, args string) {
		env, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ")) // it may have gone
		places["process "+args] = args + string(env)
	})
	for _, dir := range []string{"kits", "data/instances", "data/sidecars", "data/aegisd.log"} {
		err := filepath.WalkDir(filepath.Join(h.home, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil //nolint:nilerr // it has gone, or is not there
			}
			if info, err := e.Info(); err != nil || info.Size() > 16<<20 {
				return nil //nolint:nilerr // as above; the disk is the guest's
			}
			b, _ := os.ReadFile(path) // as above
			places[path] = string(b)
			return nil
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	for where, text := range places {
		if strings.Contains(text, tokenOfSidecar) {
			h.t.Errorf("the sidecar's secret is in %s", where)
		}
	}
}

// beside returns the process of the one sidecar of an instance.
func (h *host) beside(name string) int {
	h.t.Helper()
	var found []int
	h.eachProcess(func(pid int, args string) {
		env, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ")) // it may have gone
		if strings.Contains(args, "hello-sidecar") && strings.Contains(string(env), "AEGIS_INSTANCE="+name+"\x00") {
			found = append(found, pid)
		}
	})
	if len(found) != 1 {
		h.t.Fatalf("beside %s run %v", name, found)
	}
	return found[0]
}
