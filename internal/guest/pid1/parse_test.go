//go:build linux

package pid1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
)

func TestParseOOM(t *testing.T) {
	const record = "6,1234,567,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom," +
		"task_memcg=/aegis/exec-1.2/sub,task=python3,pid=7,uid=0\n SUBSYSTEM=x\n"
	got, ok := parseOOM(record)
	if want := (guestproto.OOM{Exec: "exec-1", Name: "python3"}); !ok || got != want {
		t.Errorf("parseOOM = %+v, %v; want %+v", got, ok, want)
	}
	for _, other := range []string{"", "6,1,2,-;python3 invoked oom-killer: gfp_mask=0x1", "oom-kill:", "oom-kill:task_memcg=/aegis/x"} {
		if got, ok := parseOOM(other); ok {
			t.Errorf("parseOOM(%q) = %+v", other, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("oom-kill:task_memcg=/aegis/x,task=a")
	f.Add("1 (a) b) S 0")
	f.Add("root:x:0:0:root:/root:/bin/sh\n::::::\nme:x:4294967295:-1:a:b:c:d\n")
	f.Fuzz(func(t *testing.T, s string) {
		scanFrom(strings.NewReader(s), 7, func(fields []string) bool { // /etc/passwd is the image's
			if id, ok := parseID(fields[2]); len(fields) < 7 || ok && strconv.FormatUint(uint64(id), 10) != strings.TrimLeft(fields[2], "0") && id != 0 {
				t.Fatalf("%q has the id %d", fields, id)
			}
			return false
		})
		parseOOM(s)
		parseStat(s)
		meminfo(s, "MemAvailable")
		mountedOn(s, "/")
	})
}

func TestParseStat(t *testing.T) {
	for line, want := range map[string]string{
		"7 (dd) D 1 7":         "dd D",
		"7 (a) b (c) S 1":      "a) b (c S",
		"7 (dd)":               "",
		"":                     "",
		"7 )( D":               "",
		"9 (x y) R 1 2 3 4 5 ": "x y R",
	} {
		name, state, ok := parseStat(line)
		got := ""
		if ok {
			got = name + " " + string(state)
		}
		if got != want {
			t.Errorf("parseStat(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestMountedOn(t *testing.T) {
	const table = `22 1 0:20 / / rw,relatime - overlay root rw,lowerdir=/a
30 22 0:40 / /workspace rw,nodev,relatime - nfs 192.168.127.1:/ rw,vers=3,addr=192.168.127.1
31 22 0:41 / /with\040blank ro shared:1 - nfs 192.168.127.1:/mounts/0 ro
32 22 0:42 / /hidden rw - nfs 192.168.127.1:/mounts/1 rw
33 22 0:43 / /hidden rw - tmpfs tmpfs rw
34 22 0:43
35 22 0:44 / /workspace2 rw - nfs
`
	for target, want := range map[string]string{
		"/workspace": "192.168.127.1:/", "/with blank": "192.168.127.1:/mounts/0", "/hidden": "", "/": "", "/workspace2": "", "/no": "",
	} {
		if got := mountedOn(table, target); got != want {
			t.Errorf("on %s: %q, want %q", target, got, want)
		}
	}
}

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:         481428 kB\nMemFree:   1 kB\nMemAvailable:     421000 kB\n"
	if got := meminfo(text, "MemAvailable"); got != 421000<<10 {
		t.Errorf("MemAvailable = %d", got)
	}
	if got := meminfo(text, "Swap"); got != 0 {
		t.Errorf("a line that is not there = %d", got)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o755, "b/tool": 0o755, "a/text": 0o644, "b/text2": 0o644} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/no/such:" + dir + "/a:" + dir + "/b"}
	for _, c := range []struct {
		name, want string
		code       guestproto.Code
	}{
		{"tool", "/a/tool", ""},
		{"text", "", guestproto.CodeNotExecutable},
		{"none", "", guestproto.CodeNoCommand},
		{"./a/tool", "/a/tool", ""},
		{"b/text2", "", guestproto.CodeNotExecutable},
		{dir + "/b/tool", "/b/tool", ""},
		{dir + "/b", "", guestproto.CodeNotExecutable},
		{dir + "/c", "", guestproto.CodeNoCommand},
		{dir + "/b/tool/x", "", guestproto.CodeNoCommand},
	} {
		got, err := lookPath(c.name, dir, env)
		if c.code == "" && (err != nil || got != dir+c.want) {
			t.Errorf("lookPath(%q) = %q, %v", c.name, got, err)
		}
		if e, ok := errors.AsType[*guestproto.Error](err); c.code != "" && (!ok || e.Code != c.code) {
			t.Errorf("lookPath(%q) = %v, want %s", c.name, err, c.code)
		}
	}
}

func TestEnvironment(t *testing.T) {
	a := account{name: "me", home: "/home/me"}
	got := environment(guestproto.Spawn{Env: []string{"HOME=/x", "A=1"}, TTY: &frame.Winsize{}}, a)
	want := []string{"HOME=/x", "A=1", "PATH=" + defaultPath, "USER=me", "LOGNAME=me", "TERM=xterm"}
	if !slices.Equal(got, want) {
		t.Errorf("environment = %q, want %q", got, want)
	}
	if v, ok := getenv([]string{"A=1", "A=2"}, "A"); !ok || v != "2" {
		t.Errorf("the last of two = %q, %v", v, ok)
	}
}

func TestRtentryLayout(t *testing.T) {
	if size := rtentrySize; size != 120 {
		t.Errorf("struct rtentry has %d bytes, the kernel's 120", size)
	}
	if ifreq, rtmsg := in6IfreqSize, in6RtmsgSize; ifreq != 24 || rtmsg != 80 {
		t.Errorf("struct in6_ifreq and in6_rtmsg have %d and %d bytes, the kernel's 24 and 80", ifreq, rtmsg)
	}
}

func TestParseDiag(t *testing.T) {
	e := binary.NativeEndian
	msg := func(kind uint16, seq uint32, body []byte) []byte {
		m := e.AppendUint32(nil, uint32(16+len(body)))
		m = e.AppendUint16(m, kind)
		m = e.AppendUint16(m, 0)
		m = e.AppendUint32(m, seq)
		return append(append(m, 0, 0, 0, 0), body...)
	}
	sock := msg(sockDiagByFamily, 7, make([]byte, 72))
	failed := msg(unix.NLMSG_ERROR, 7, e.AppendUint32(nil, uint32(0xffffffff)-uint32(unix.ENOENT)+1))
	for _, c := range []struct {
		name  string
		in    []byte
		socks int
		done  bool
		err   error
	}{
		{"sockets", append(bytes.Clone(sock), sock...), 2, false, nil},
		{"the end", append(bytes.Clone(sock), msg(unix.NLMSG_DONE, 7, make([]byte, 4))...), 1, true, nil},
		{"acknowledged", msg(unix.NLMSG_ERROR, 7, make([]byte, 20)), 0, true, nil},
		{"no such family", failed, 0, true, unix.ENOENT},
		{"of an earlier request", msg(unix.NLMSG_DONE, 6, nil), 0, false, nil},
		{"cut", sock[:40], 0, false, nil},
		{"short", msg(sockDiagByFamily, 7, make([]byte, 10)), 0, false, nil},
		{"nothing", nil, 0, false, nil},
		{"sizes that lie", append(e.AppendUint32(nil, 3), make([]byte, 20)...), 0, false, nil},
	} {
		socks, done, err := parseDiag(c.in, 7)
		if len(socks) != c.socks || done != c.done || !errors.Is(err, c.err) {
			t.Errorf("%s: %d sockets, done %v, %v", c.name, len(socks), done, err)
		}
	}
}

func TestSocketPeer(t *testing.T) {
	id := make(socket, sockIDSize)
	copy(id, []byte{0x03, 0x43, 0x08, 0x01, 192, 168, 127, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 168, 127, 1})
	if got := id.peer().String(); got != "192.168.127.1:2049" {
		t.Errorf("peer %s", got)
	}
}

// TestBehind puts the host's programs last on a PATH, once.
func TestBehind(t *testing.T) {
	for path, want := range map[string]string{
		"":                       "/run/aegis/host/bin",
		"/bin":                   "/bin:/run/aegis/host/bin",
		"/bin:/run/aegis":        "/bin:/run/aegis:/run/aegis/host/bin",
		"/run/aegis/host/bin:/b": "/run/aegis/host/bin:/b",
	} {
		if got := behind(path, toolsBin); got != want {
			t.Errorf("behind %q: %q, want %q", path, got, want)
		}
	}
}
