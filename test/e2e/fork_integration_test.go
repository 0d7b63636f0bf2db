//go:build integration

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
)

// keeper is a server that keeps a number in memory, on its disk in a database, and in its
// workspace, and tells all that a copy of it must not share. On port 81 it echoes.
const keeper = `
import http.server, json, os, socket, sqlite3, threading, time, urllib.parse
number, talking = 0, 0
lock = threading.Lock()
db = sqlite3.connect('/var/numbers.db', check_same_thread=False, isolation_level=None)
db.execute('pragma journal_mode=wal')
db.execute('create table if not exists numbers (n integer)')
def talk(c):
    global talking
    talking += 1
    try:
        while True:
            b = c.recv(100)
            if not b: break
            c.sendall(b)
    except OSError: pass
    talking -= 1
def listen():
    s = socket.create_server(('', 81))
    while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
threading.Thread(target=listen, daemon=True).start()
def read(path):
    try: return open(path).read().strip()
    except OSError: return ''
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global number
        u = urllib.parse.urlparse(self.path)
        q = dict(urllib.parse.parse_qsl(u.query))
        with lock:
            if u.path == '/put':
                number = int(q['n'])
                db.execute('insert into numbers values (?)', (number,))
                open('/workspace/number', 'w').write(q['n'])
                print('put', number, flush=True)
            if u.path == '/exit': os._exit(int(q['n']))
            stored = [n for n, in db.execute('select n from numbers order by rowid')]
            sound = db.execute('pragma integrity_check').fetchone()[0]
        body = json.dumps(dict(number=number, stored=stored, sound=sound, workspace=read('/workspace/number'), random=os.urandom(16).hex(),
            time=time.time(), machine=read('/etc/machine-id'), boot=read('/proc/sys/kernel/random/boot_id'), host=socket.gethostname(),
            talking=talking, secret=os.environ.get('KEY', ''))).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('', 80), H).serve_forever()
`

// kept is one answer of a keeper.
type kept struct {
	Number    int
	Stored    []int
	Sound     string
	Workspace string
	Random    string
	Time      float64
	Machine   string
	Boot      string
	Host      string
	Talking   int
	Secret    string
}

// keeper makes an instance that runs a keeper.
func (h *host) keeper(name string, more ...func(*api.CreateRequest)) {
	h.t.Helper()
	never := int64(0)
	req := api.CreateRequest{
		Handle: name, Command: []string{"python3", "-uc", keeper}, PauseAfterS: &never, Expose: []api.ExposeRequest{{Port: 80}, {Port: 81, Protocol: "tcp"}},
	}
	for _, f := range more {
		f(&req)
	}
	if _, _, err := h.client().Launch(h.t.Context(), req); err != nil {
		h.t.Fatal(err)
	}
}

// port returns the address of a port of an instance.
func (h *host) port(ref string, guest int) string {
	h.t.Helper()
	for _, e := range h.info(ref).Endpoints {
		if e.GuestPort == guest {
			return fmt.Sprintf("127.0.0.1:%d", e.PublicPort)
		}
	}
	h.t.Fatalf("%s has no port %d", ref, guest)
	return ""
}

// tellOf asks the keeper in an instance. number is put first if it is not 0.
func (h *host) tellOf(ref string, number int) kept {
	h.t.Helper()
	at := url.URL{Scheme: "http", Host: h.port(ref, 80), Path: "/"}
	if number != 0 {
		at.Path, at.RawQuery = "/put", fmt.Sprintf("n=%d", number)
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(at.String())
	if err != nil {
		h.t.Fatalf("%s: %v", ref, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var k kept
	if err := json.NewDecoder(resp.Body).Decode(&k); err != nil {
		h.t.Fatalf("%s: %v", ref, err)
	}
	if k.Sound != "ok" {
		h.t.Errorf("the database of %s is %s", ref, k.Sound)
	}
	return k
}

// holds fails the test unless the keeper in an instance has these numbers, in memory and on its
// disk.
func (h *host) holds(ref string, numbers ...int) kept {
	h.t.Helper()
	k := h.tellOf(ref, 0)
	if k.Number != numbers[len(numbers)-1] || !slices.Equal(k.Stored, numbers) {
		h.t.Errorf("%s has %d in memory and %v on its disk, not %v", ref, k.Number, k.Stored, numbers)
	}
	return k
}

// noneLeft fails the test where files of forks and snapshots are left that nobody has.
func (h *host) noneLeft() {
	h.t.Helper()
	eventually(h.t, "files that nobody has are removed", func() bool { return len(h.shared()) == 0 })
}

// shared lists the files of snapshots and the layers of disks.
func (h *host) shared() []string {
	h.t.Helper()
	var all []string
	for _, dir := range []string{"snapshots", "layers"} {
		names, err := filepath.Glob(filepath.Join(h.home, "data", dir, "*"))
		hidden, err2 := filepath.Glob(filepath.Join(h.home, "data", dir, ".*"))
		if err := errors.Join(err, err2); err != nil {
			h.t.Fatal(err)
		}
		all = append(append(all, names...), hidden...)
	}
	return all
}

// TestForkContract holds docs/SNAPSHOTS.md to what forks are.
func TestForkContract(t *testing.T) {
	h := newHost(t)
	set := h.aegis("secret", "set", "KEY")
	set.Stdin = strings.NewReader("treasure")
	if out := finish(t, set); out.status != 0 {
		t.Fatal(out.stderr)
	}
	h.keeper("web", func(r *api.CreateRequest) { r.Secrets = []string{"KEY"} })
	h.tellOf("web", 1)
	conn, err := net.Dial("tcp", h.port("web", 81))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // of no use any more
	echoes := func() error {
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	if err := echoes(); err != nil {
		t.Fatal(err)
	}
	exec := h.background("exec", "web", "--", "sh", "-c", "echo ready; exec sleep 123456")
	exec.ready()

	out := h.ok("instance", "fork", "web", "--name", "f", "-n", "2")
	if strings.Count(out, "URL: ") != 4 {
		t.Errorf("the ports are not told:\n%s", out)
	}
	if n := strings.Count(h.log(), "msg=captured"); n != 1 {
		t.Errorf("the source stood still %d times", n)
	}
	source := h.holds("web", 1)
	seen := map[string]string{}
	for _, ref := range []string{"web", "f-1", "f-2"} {
		k := h.holds(ref, 1)
		for what, value := range map[string]string{"random": k.Random, "machine-id": k.Machine, "boot id": k.Boot, "hostname": k.Host} {
			if other := seen[what+value]; value == "" || other != "" {
				t.Errorf("%s of %s is %q, as of %q", what, ref, value, other)
			}
			seen[what+value] = ref
		}
		if late := time.Since(time.Unix(0, int64(k.Time*1e9))).Abs(); late > 5*time.Second {
			t.Errorf("the clock of %s is off by %v", ref, late)
		}
		if k.Secret != "treasure" || k.Workspace != "1" {
			t.Errorf("%s has the secret %q and the workspace %q", ref, k.Secret, k.Workspace)
		}
		talking := 0
		if ref == "web" {
			talking = 1
		}
		if k.Talking != talking {
			t.Errorf("%s has %d connections", ref, k.Talking)
		}
	}
	if source.Host != "web" {
		t.Errorf("the source is %q now", source.Host)
	}
	if err := echoes(); err != nil {
		t.Errorf("a connection of the source broke: %v", err)
	}
	asleep := "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done | grep -c '^sleep 123456'"
	for ref, want := range map[string]string{"web": "1\n", "f-1": "0\n", "f-2": "0\n"} {
		if got := h.try("exec", ref, "--", "sh", "-c", asleep); got.stdout != want {
			t.Errorf("%s has %q commands of the source", ref, got.stdout)
		}
	}
	// Each goes its own way, on its disk, in its workspace and in its log.
	h.tellOf("f-1", 2)
	h.tellOf("web", 3)
	h.holds("web", 1, 3)
	h.holds("f-1", 1, 2)
	h.holds("f-2", 1)
	for ref, want := range map[string]string{"web": "put 1\nput 3\n", "f-1": "put 2\n", "f-2": ""} {
		if got := h.ok("logs", ref); got != want {
			t.Errorf("the log of %s is %q", ref, got)
		}
		if got := h.tellOf(ref, 0).Workspace; got != map[string]string{"web": "3", "f-1": "2", "f-2": "1"}[ref] {
			t.Errorf("the workspace of %s has %q", ref, got)
		}
	}
	// Secrets of later execs are those that were asked for: none.
	if got := h.ok("exec", "f-1", "--", "sh", "-c", "echo ${KEY:-none}"); got != "none\n" {
		t.Errorf("an exec in a fork has %q", got)
	}
	if info := h.info("f-1"); len(info.SecretKeys) != 0 || len(info.Holds) != 0 {
		t.Errorf("the fork has secrets %v and holds %v", info.SecretKeys, info.Holds)
	}
	// A later daemon goes on with them.
	h.signal(syscall.SIGKILL)
	_ = exec.wait()
	h.up()
	h.tellOf("f-2", 4)
	h.holds("f-2", 1, 4)
	if got := h.ok("logs", "f-2"); got != "put 4\n" {
		t.Errorf("the log of f-2 is %q", got)
	}
	// The end of its program is followed.
	_, _ = http.Get("http://" + h.port("f-1", 80) + "/exit?n=3") //nolint:bodyclose // there is no answer
	eventually(t, "the fork has stopped", func() bool { return h.info("f-1").State == api.StateStopped })
	if got := h.ok("logs", "f-1"); !strings.Contains(got, "process exited (code=3)") {
		t.Errorf("the log of f-1 is %q", got)
	}
	for _, ref := range []string{"web", "f-1", "f-2"} {
		h.ok("instance", "delete", ref)
	}
	h.noneLeft()
}

// TestForkOfEveryState: paused, hibernated, woken and stopped sources, and what they are afterwards.
func TestForkOfEveryState(t *testing.T) {
	h := newHost(t)
	h.keeper("web")
	h.tellOf("web", 1)
	for _, c := range []struct {
		name   string
		before []string
		state  string
	}{
		{"paused", []string{"instance", "pause", "web"}, api.StatePaused},
		{"paused again", []string{"instance", "pause", "web"}, api.StatePaused},
		{"hibernated", []string{"instance", "stop", "--hibernate", "web"}, api.StateStopped},
		{"woken", []string{"instance", "resume", "web"}, api.StateRunning}, // it owns its memory now
		{"hibernated again", []string{"instance", "stop", "--hibernate", "web"}, api.StateStopped},
	} {
		h.ok(c.before...)
		h.ok("instance", "fork", "web", "--name", "copy")
		if got := h.info("web").State; got != c.state {
			t.Errorf("%s: the source is %s afterwards", c.name, got)
		}
		h.holds("copy", 1)
		h.tellOf("copy", 2)
		h.holds("web", 1)
		h.ok("instance", "delete", "copy")
	}
	h.ok("instance", "stop", "web")
	r := h.try("instance", "fork", "web", "--name", "cold")
	if r.status != 0 || !strings.Contains(r.stderr, "is stopped: its disk was copied, and the program started anew") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
	if k := h.tellOf("cold", 0); k.Number != 0 || !slices.Equal(k.Stored, []int{1}) {
		t.Errorf("a fork of a stopped one has %d in memory and %v on its disk", k.Number, k.Stored)
	}
	h.ok("instance", "delete", "web")
	h.ok("instance", "delete", "cold")
	h.noneLeft()
}

// TestForksOfForks: a family over many generations, whose members go in any order. What each has
// on its disk stays what it was, also when a long disk becomes one file.
func TestForksOfForks(t *testing.T) {
	h := newHost(t)
	h.keeper("g0")
	generations := stress(9, 40)
	const sum = "sha256sum /root/* 2>/dev/null | sha256sum; cat /root/* 2>/dev/null | wc -c"
	sums := map[string]string{}
	for g := range generations {
		name := fmt.Sprintf("g%d", g)
		h.ok("exec", name, "--", "sh", "-c", fmt.Sprintf("head -c 1000000 /dev/urandom > /root/%d; rm -f /root/%d", g, g-5))
		h.ok("instance", "fork", name, "--name", fmt.Sprintf("g%d", g+1))
		sums[name] = h.ok("exec", name, "--", "sh", "-c", "head -c 100000 /dev/urandom > /root/own; "+sum)
		if g >= 9 { // or they take all the memory
			h.ok("instance", "stop", "--hibernate", name)
		}
	}
	last := fmt.Sprintf("g%d", generations)
	sums[last] = h.ok("exec", last, "--", "sh", "-c", sum)
	h.ok("instance", "snapshot", last, "end")
	// There was a layer from each generation: what begins with many, or stops, has them as one.
	h.ok("instance", "stop", last)
	if layers := h.only("data/instances/" + h.info(last).ID + "/disk.json"); strings.Count(string(load(t, layers)), "layer-") > 8 {
		t.Errorf("the disk of %s is in too many pieces: %s", last, load(t, layers))
	}
	h.ok("instance", "start", "--name", "again", "--snapshot", "end")
	sums["again"] = sums[last]
	for _, i := range rand.Perm(len(sums)) {
		name := fmt.Sprintf("g%d", i)
		if i == generations+1 {
			name = "again"
		}
		if got := h.ok("exec", name, "--", "sh", "-c", sum); got != sums[name] {
			t.Errorf("%s has %q on its disk, not %q", name, got, sums[name])
		}
		if i != generations {
			h.ok("instance", "delete", name)
		}
	}
	h.ok("snapshot", "delete", "end")
	h.ok("instance", "delete", last)
	h.noneLeft()
}

// TestRestoreRounds: an instance goes back again and again; memory and disk are always those of
// the snapshot, together.
func TestRestoreRounds(t *testing.T) {
	h := newHost(t)
	h.keeper("web")
	h.tellOf("web", 1)
	numbers := []int{1}
	before := h.info("web")
	for i := range stress(5, 50) {
		name := fmt.Sprintf("s%d", i)
		h.ok("instance", "snapshot", "web", name)
		if i%2 == 1 { // one more that is of no use
			h.ok("instance", "snapshot", "web", "other")
		}
		h.tellOf("web", 1000+i)
		h.tellOf("web", 2000+i)
		if i%3 == 2 {
			h.ok("instance", "stop", "--hibernate", "web")
		}
		h.ok("instance", "restore", "web", name)
		h.holds("web", numbers...)
		numbers = append(numbers, 10+i)
		h.tellOf("web", 10+i)
		h.holds("web", numbers...)
		if i%2 == 1 {
			h.ok("snapshot", "delete", "other")
			h.ok("snapshot", "delete", name)
		}
	}
	after := h.info("web")
	if after.ID != before.ID || !slices.Equal(after.Endpoints, before.Endpoints) {
		t.Errorf("it was %+v, and is %+v", before, after)
	}
	// Long ago, from another daemon, after the instance was deleted.
	h.ok("down")
	h.up()
	h.ok("instance", "restore", "web", "s0")
	h.holds("web", 1)
	h.ok("instance", "delete", "web")
	h.ok("instance", "start", "--name", "later", "--snapshot", "s2")
	h.holds("later", 1, 10, 11)
	if r := h.try("instance", "start", "--snapshot", "s2", "--memory", "1G"); r.status == 0 || !strings.Contains(r.stderr, "leave out --memory") {
		t.Errorf("another shape: status %d: %s", r.status, r.stderr)
	}
	h.ok("instance", "delete", "later")
	var all []api.Snapshot
	if err := json.Unmarshal([]byte(h.ok("snapshot", "list", "--json")), &all); err != nil || len(all) == 0 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
	for _, s := range all {
		if s.Size < 1<<20 || s.Handle != "web" || s.CreatedAt.IsZero() {
			t.Errorf("%+v", s)
		}
		h.ok("snapshot", "delete", s.Name)
	}
	h.noneLeft()
}

// TestDaemonKilledInAFork: whenever the daemon dies, the source has lost nothing, and nothing is
// left of what was not finished.
func TestDaemonKilledInAFork(t *testing.T) {
	h := newHost(t)
	h.keeper("web")
	h.tellOf("web", 1)
	h.ok("instance", "snapshot", "web", "first")
	numbers := []int{1}
	for i := range stress(6, 90) {
		args := [][]string{
			{"instance", "fork", "web", "-n", "2", "--name", fmt.Sprintf("f%d", i)},
			{"instance", "snapshot", "web", fmt.Sprintf("s%d", i)},
			{"instance", "restore", "web", "first"},
		}[i%3]
		op := h.background(args...)
		time.Sleep(time.Duration(rand.IntN(1200)) * time.Millisecond) // anywhere within it
		h.signal(syscall.SIGKILL)
		done := op.wait().status == 0
		h.up()
		if i%3 == 2 { // it is what it was, or what it was then; its program may have started anew
			k := h.tellOf("web", 0)
			if !slices.Equal(k.Stored, numbers) && !slices.Equal(k.Stored, []int{1}) || done && !slices.Equal(k.Stored, []int{1}) {
				t.Errorf("round %d: %v on the disk, of %v", i, k.Stored, numbers)
			}
			numbers = append(slices.Clone(k.Stored), 100+i)
			h.tellOf("web", 100+i)
		} else {
			h.holds("web", numbers...)
			numbers = append(numbers, 100+i)
			h.tellOf("web", 100+i)
		}
		h.holds("web", numbers...)
		list, err := h.client().List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		running := 0
		for _, inst := range list {
			if inst.State != api.StateStopped {
				running++
			}
			if inst.Handle != "web" {
				if forks := len(list) - 1; forks != 2 {
					t.Errorf("round %d: %d of 2 forks are there, done %v", i, forks, done)
				}
				h.ok("instance", "delete", inst.ID)
			}
		}
		if done && i%3 == 0 && len(list) != 3 {
			t.Errorf("round %d: a fork that was answered is not there", i)
		}
		if machines := len(h.machines()); i%3 != 0 && machines != running {
			t.Errorf("round %d: %d VMs of %d instances", i, machines, running)
		}
		snaps, err := h.client().Snapshots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		folders, err := filepath.Glob(filepath.Join(h.home, "data/snapshots/*"))
		if err != nil || len(folders) != len(snaps) {
			t.Errorf("round %d: %d snapshots in %v, %v", i, len(snaps), folders, err)
		}
		for _, s := range snaps {
			if s.Name != "first" {
				h.ok("snapshot", "delete", s.Name)
			}
		}
	}
	h.ok("instance", "delete", "web")
	h.ok("snapshot", "delete", "first")
	h.noneLeft()
}

// TestManyForks: thirty at a time, each with little memory of its own.
func TestManyForks(t *testing.T) {
	h := newHost(t)
	h.keeper("web")
	h.tellOf("web", 1)
	count := stress(6, 30)
	begin := time.Now()
	forks, err := h.client().Fork(t.Context(), "web", api.ForkRequest{Count: count})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d forks in %v", count, time.Since(begin))
	if n := strings.Count(h.log(), "msg=captured"); n != 1 {
		t.Errorf("the source stood still %d times", n)
	}
	var most int64
	machines := h.machines()
	for _, f := range forks {
		most = max(most, pss(t, machines[f.ID]))
	}
	t.Logf("at most %d MB each", most>>20)
	// Under emulation two thirds of it are the VMM's translation of what the guest runs.
	if limit := int64(96 << 20); most > limit {
		t.Errorf("a VM takes %d MB of its own", most>>20)
	}
	for _, f := range forks {
		h.holds(f.ID, 1)
		h.ok("instance", "delete", f.ID)
	}
	h.ok("instance", "delete", "web")
	h.noneLeft()
}

// pss returns a process's share of the memory that it has in common with others, and its own.
func pss(t *testing.T, pid int) int64 {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	var kb int64
	for in := bufio.NewScanner(f); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), "Pss:"); ok {
			if _, err := fmt.Sscan(rest, &kb); err != nil {
				t.Fatal(err)
			}
		}
	}
	return kb << 10
}
