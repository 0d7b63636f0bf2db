package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kit"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// world is what a Supervisor works in.
type world struct {
	*Supervisor

	home  paths.Home
	bin   string
	lines chan string // of logs

	mu      sync.Mutex
	secrets map[string]string
}

// patience bounds what takes no time: it decides nothing but when a test has failed.
const patience = time.Minute

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		home: paths.Home(t.TempDir()), bin: programs(t), lines: make(chan string, 100_000), secrets: map[string]string{},
	}
	config := kit.NewConfig(w.home)
	w.Supervisor = New(Options{
		Home: w.home, Log: slog.New(slog.DiscardHandler), Dir: config.Ensure,
		Lookup: func(name string) (string, error) {
			path := filepath.Join(w.bin, name)
			_, err := os.Stat(path)
			return path, err
		},
		Asks: func(handle, file string) ([]string, bool) {
			b, _ := config.Read(handle, file)
			return kit.SecretNames(b)
		},
		Resolve: w.resolve,
		Tell:    func(id, text string) { w.lines <- id + " " + text },
		Limits:  Limits{Grace: 200 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 4 * time.Millisecond, Steady: time.Hour},
	})
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// programs makes a folder with the programs that TestMain plays.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name := range roles {
		if err := os.Symlink(exe, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *world) resolve(_ context.Context, names []string) (map[string]secret.Value, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]secret.Value{}
	for _, n := range names {
		v, ok := w.secrets[n]
		if !ok {
			return nil, fault.New(fault.NotFound, "there is no secret %s", n)
		}
		out[n] = secret.New(v)
	}
	return out, nil
}

// set stores a secret as the API does.
func (w *world) set(name, value string) {
	w.mu.Lock()
	w.secrets[name] = value
	w.mu.Unlock()
	w.Look()
}

func (w *world) want(on bool, secrets []string, names ...string) {
	g := Group{ID: "inst-1", Handle: "one", Secrets: secrets}
	for _, n := range names {
		g.Programs = append(g.Programs, Program{Name: n, Config: n + ".json"})
	}
	w.Want(g, on)
}

// await returns the next line of the log that fits, and what its first group is.
func (w *world) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	late := time.After(patience)
	for {
		select {
		case line := <-w.lines:
			if m := re.FindStringSubmatch(line); m != nil {
				return m[len(m)-1]
			}
		case <-late:
			t.Fatalf("no line of the log is like %q", pattern)
		}
	}
}

func (w *world) pid(t *testing.T, pattern string) int {
	t.Helper()
	pid, err := strconv.Atoi(w.await(t, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (w *world) end(t *testing.T) {
	t.Helper()
	if err := w.End(t.Context(), "inst-1"); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(w.home.Sidecars()); len(names) > 0 {
		t.Errorf("records are left: %v", names)
	}
}

func lives(pid int) bool {
	_, err := startOf(pid)
	return err == nil
}

// gone waits until a process that is not ours has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for late := time.Now().Add(patience); lives(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("process %d lives", pid)
		}
	}
}

// TestSecretsFollow: what the file asks for comes over the descriptor, also when secret or
// file change later, and the process stays the same.
func TestSecretsFollow(t *testing.T) {
	w := newWorld(t)
	w.want(true, nil, "reader")
	pid := w.pid(t, `reader: pid (\d+)`)
	w.await(t, `read \{"secrets":\{\}\}`)
	config := kit.NewConfig(w.home)
	if err := config.Write("one", "reader.json", []byte(`{"telegram":{"bot_token_secret":"TOKEN"},"token":"TOKEN"}`)); err != nil {
		t.Fatal(err)
	}
	w.set("OTHER", "not asked for")
	w.set("TOKEN", "first\n\"one\"")
	w.await(t, `read \{"secrets":\{"TOKEN":"first\\n\\"one\\""\}\}`)
	w.set("TOKEN", "second")
	w.await(t, `read \{"secrets":\{"TOKEN":"second"\}\}`)
	if err := config.Write("one", "reader.json", []byte(`[{"a_secret":"OTHER"},{"b_secret":"TOKEN"},{"c_secret":"../x"}]`)); err != nil {
		t.Fatal(err)
	}
	w.await(t, `read \{"secrets":\{"OTHER":"not asked for","TOKEN":"second"\}\}`)
	// A file that is broken, or half written, takes nothing away.
	if err := config.Write("one", "reader.json", []byte(`[{"b_secret":`)); err != nil {
		t.Fatal(err)
	}
	w.set("TOKEN", "third")
	w.await(t, `read \{"secrets":\{"OTHER":"not asked for","TOKEN":"third"\}\}`)
	if !lives(pid) || !w.Running("inst-1") {
		t.Error("it was started again for that")
	}
	w.end(t)
	if lives(pid) || w.Running("inst-1") {
		t.Error("it lives")
	}
}

// TestEnvironment is what a sidecar knows, and what it does not.
func TestEnvironment(t *testing.T) {
	t.Setenv("AEGIS_TEST_PRIVATE", "of the daemon")
	w := newWorld(t)
	w.set("KEY", "value")
	w.want(true, []string{"KEY"}, "envreader")
	var env []string
	for {
		line := <-w.lines
		if dir, ok := strings.CutPrefix(line, "inst-1 envreader: in "); ok {
			if filepath.Base(dir) != "one" {
				t.Errorf("it works in %s", dir)
			}
			break
		}
		env = append(env, strings.TrimPrefix(line, "inst-1 envreader: env "))
	}
	for _, want := range []string{
		"KEY=value", "AEGIS_INSTANCE=one", "AEGIS_INSTANCE_ID=inst-1", "AEGIS_SOCKET=" + w.home.Socket(), "AEGIS_HOME=" + string(w.home),
		"AEGIS_SECRETS_FD=3", "AEGIS_KIT_CONFIG=" + filepath.Join(w.home.Kits(), "one", "envreader.json"), "PATH=" + os.Getenv("PATH"),
	} {
		if !slices.Contains(env, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if i := slices.IndexFunc(env, func(e string) bool { return strings.Contains(e, "PRIVATE") }); i >= 0 {
		t.Errorf("it has %s", env[i])
	}
}

// TestCrashes starts one that ends again, and one that cannot start as soon as it can.
func TestCrashes(t *testing.T) {
	w := newWorld(t)
	w.want(true, nil, "crasher")
	for range 4 {
		w.await(t, "crasher: crash")
	}
	w.end(t)
	w.want(true, []string{"MISSING"}, "reader")
	w.await(t, "reader: it cannot be started: there is no secret MISSING")
	w.set("MISSING", "x")
	w.await(t, "reader: pid")
}

// TestBackoff holds the delays, told once for one reason.
func TestBackoff(t *testing.T) {
	w := newWorld(t)
	w.o.Limits = Limits{Grace: time.Second, Backoff: time.Hour, MaxBackoff: time.Hour, Steady: time.Hour}
	w.want(true, nil, "crasher")
	w.await(t, `crasher: it has ended: exit status 3; it is started again in 1h0m0s`)
	w.end(t) // does not wait for it
}

// TestStubborn ends what ignores SIGTERM, what is stopped, and all that it started.
func TestStubborn(t *testing.T) {
	w := newWorld(t)
	w.want(true, nil, "stubborn")
	pid := w.pid(t, `pid (\d+)`)
	w.end(t)
	if lives(pid) {
		t.Error("it ignores SIGTERM, and lives")
	}
	w.want(true, nil, "reader")
	pid = w.pid(t, `pid (\d+)`)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.end(t)
	if lives(pid) {
		t.Error("it hangs, and lives")
	}
	w.want(true, nil, "parent")
	child, stray := w.pid(t, `child (\d+)`), w.pid(t, `child (\d+)`)
	t.Cleanup(func() { _ = syscall.Kill(stray, syscall.SIGKILL) }) // it left the group
	w.pid(t, `pid (\d+)`)
	w.end(t)
	gone(t, child)
}

// TestNeverTwo: one that is wanted again with other secrets, or off and on, ends first.
func TestNeverTwo(t *testing.T) {
	w := newWorld(t)
	w.set("KEY", "value")
	w.want(true, nil, "stubborn")
	first := w.pid(t, `pid (\d+)`)
	w.want(true, []string{"KEY"}, "stubborn")
	second := w.pid(t, `pid (\d+)`)
	if lives(first) {
		t.Error("two of them")
	}
	w.want(false, nil)
	w.want(true, nil, "stubborn")
	third := w.pid(t, `pid (\d+)`)
	if lives(second) || !lives(third) {
		t.Errorf("the second lives: %v, the third: %v", lives(second), lives(third))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if lives(third) {
		t.Error("it outlives its daemon's orderly end")
	}
	w.want(true, nil, "reader") // too late
	if w.Running("inst-1") {
		t.Error("it runs without a daemon")
	}
}

// TestRelieved waits for what is not wanted any more, and for nothing else.
func TestRelieved(t *testing.T) {
	w := newWorld(t)
	w.want(true, nil, "stubborn")
	pid := w.pid(t, `pid (\d+)`)
	if err := w.Relieved(t.Context(), "inst-1"); err != nil || !lives(pid) {
		t.Errorf("while it is wanted: %v, it lives: %v", err, lives(pid))
	}
	w.want(false, nil)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Relieved(ended, "inst-1"); err == nil {
		t.Error("it was not waited for")
	}
	if err := w.Relieved(t.Context(), "inst-1"); err != nil || lives(pid) {
		t.Errorf("after that: %v, it lives: %v", err, lives(pid))
	}
	if err := w.Relieved(t.Context(), "inst-1"); err != nil || w.Running("inst-1") {
		t.Errorf("of none: %v", err)
	}
}

// TestDaemonKilled: nothing of a sidecar outlives a daemon that is killed, and the next
// daemon has ended it before it starts one.
func TestDaemonKilled(t *testing.T) {
	for _, program := range []string{"stubborn", "reader", "parent"} {
		w := newWorld(t)
		doom := exec.Command(filepath.Join(w.bin, "doomed"), string(w.home), program)
		out, err := doom.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := doom.Start(); err != nil {
			t.Fatal(err)
		}
		var pids []int
		for in := bufio.NewScanner(out); in.Scan(); {
			_, pid, ok := strings.Cut(in.Text(), ": ")
			n, err := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(pid, "pid "), "child "))
			if ok && err == nil {
				pids = append(pids, n)
			}
			if strings.Contains(in.Text(), ": pid ") {
				break
			}
		}
		if len(pids) == 0 {
			t.Fatal("it did not start")
		}
		for len(recorded(w)) == 0 {
			time.Sleep(time.Millisecond) // until it is on record: the daemon is killed after that
		}
		if err := doom.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = doom.Wait() // it was killed
		if runtime.GOOS == "linux" || program == "reader" {
			gone(t, pids[len(pids)-1])
		}
		if err := w.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			if runtime.GOOS == "linux" || pid == pids[len(pids)-1] {
				gone(t, pid)
			}
		}
		if left := recorded(w); len(left) > 0 {
			t.Errorf("still on record: %v", left)
		}
	}
}

func recorded(w *world) []string {
	names, _ := filepath.Glob(filepath.Join(w.home.Sidecars(), "*.json"))
	return names
}

// TestRecoverSparesOthers: a number that another process has now, and records that are
// none, harm nobody.
func TestRecoverSparesOthers(t *testing.T) {
	w := newWorld(t)
	if err := os.MkdirAll(w.home.Sidecars(), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{
		fmt.Sprintf(`{"pid":%d,"start":"earlier","mark":"x"}`, os.Getpid()), `{"pid":1,"start":"","mark":"x"}`,
		`{"pid":-1,"start":"","mark":"x"}`, `{"pid":0}`, `{`, "", `{"pid":2,"mark":""}`,
	} {
		if err := os.WriteFile(filepath.Join(w.home.Sidecars(), strconv.Itoa(i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(w.home.Sidecars()); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}

// TestLines cuts, mends and limits what a sidecar writes.
func TestLines(t *testing.T) {
	w := newWorld(t)
	w.o.Limits.Backoff, w.o.Limits.MaxBackoff = time.Hour, time.Hour
	w.want(true, nil, "shouter")
	for range 3 {
		w.await(t, `^inst-1 shouter: x+$`)
	}
	w.await(t, `shouter: short$`)
	w.await(t, "shouter: \uFFFD$")
	w.await(t, "lines are left out")
}
