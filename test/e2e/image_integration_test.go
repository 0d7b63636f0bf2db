//go:build integration

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
)

// entry is what a file is in a VM, as testdata/lister tells it.
type entry struct {
	Path   string            `json:"path"`
	Mode   uint32            `json:"mode"`
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Links  uint64            `json:"links"`
	Size   int64             `json:"size"`
	Device uint64            `json:"device,omitempty"`
	Sec    int64             `json:"sec"`
	Nsec   int64             `json:"nsec"`
	Target string            `json:"target,omitempty"`
	Sum    string            `json:"sum,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

// lister builds the program that an image without anything else runs.
func lister(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lister")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/lister")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the lister: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// member is a member of a layer.
type member struct {
	tar.Header
	data string
}

func layer(t *testing.T, members ...member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := m.Header
		h.Size, h.Format = int64(len(m.data)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// save writes an archive as `docker save` does, the first layer with gzip and the others
// with zstd.
func save(t *testing.T, path, ref string, config map[string]any, layers ...[]byte) {
	t.Helper()
	var ids, names []string
	var members []member
	for i, l := range layers {
		sum := sha256.Sum256(l)
		ids = append(ids, "sha256:"+hex.EncodeToString(sum[:]))
		var packed bytes.Buffer
		if i == 0 {
			z := gzip.NewWriter(&packed)
			if _, err := z.Write(l); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			z, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			packed.Write(z.EncodeAll(l, nil))
		}
		names = append(names, fmt.Sprintf("layer%d", i))
		members = append(members, member{tar.Header{Typeflag: tar.TypeReg, Name: names[i], Mode: 0o644}, packed.String()})
	}
	for file, v := range map[string]any{
		"config.json":   map[string]any{"os": "linux", "config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": ids}},
		"manifest.json": []any{map[string]any{"Config": "config.json", "RepoTags": []string{ref}, "Layers": names}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{tar.Header{Typeflag: tar.TypeReg, Name: file, Mode: 0o644}, string(b)})
	}
	slices.SortFunc(members, func(a, b member) int { return -strings.Compare(a.Name, b.Name) }) // an image's first: manifest.json
	write(t, path, layer(t, members...), 0o600)
}

// TestImages goes through the life of images in one home.
func TestImages(t *testing.T) {
	h := newHost(t)
	program := lister(t)
	t.Run("everything about a file is kept", func(t *testing.T) { keepsEverything(t, h, program) })
	t.Run("defaults", func(t *testing.T) { imageDefaults(t, h, program) })
	t.Run("a name that moves", func(t *testing.T) { movingName(t, h, program) })
	t.Run("pull", func(t *testing.T) { pullAndRun(t, h, program) })
	t.Run("commit", func(t *testing.T) { commitInstance(t, h) })
	if n := h.daemonMemory(); n > 400<<20 {
		t.Errorf("the daemon has %d MB", n>>20)
	}
}

var stamp = time.Date(2021, 3, 4, 5, 6, 7, 890123456, time.UTC)

// keepsEverything makes an image of all that an archive can say, and compares what a
// program in the VM sees with a table.
func keepsEverything(t *testing.T, h *host, program []byte) {
	big := strings.Repeat("0123456789abcdef", stress(1<<20, 20<<20)) // 16 MB, or 320
	sparse := string(make([]byte, stress(32<<20, 512<<20))) + "end"
	long, deep := strings.Repeat("n", 255), strings.Repeat("deep/", 40)
	of := func(typ byte, name string, mode int64, data string) member {
		return member{tar.Header{Typeflag: typ, Name: name, Mode: mode, ModTime: stamp}, data}
	}
	with := func(m member, change func(*tar.Header)) member { change(&m.Header); return m }
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	lower := layer(
		t,
		of(tar.TypeReg, "lister", 0o755, string(program)), of(tar.TypeDir, "t/", 0o1777, ""),
		with(of(tar.TypeReg, "t/suid", 0o6755, "suid"), func(h *tar.Header) { h.Uid, h.Gid = 12, 34 }),
		with(of(tar.TypeReg, "t/owned", 0o600, "owned"), func(h *tar.Header) { h.Uid, h.Gid = 1234567, 4294967294 }),
		with(of(tar.TypeReg, "t/capable", 0o755, "ping"), func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "a\x01b", "SCHILY.xattr.trusted.mine": "t"}
		}),
		with(of(tar.TypeLink, "t/suid2", 0, ""), func(h *tar.Header) { h.Linkname = "t/suid" }),
		with(of(tar.TypeLink, "t/suid3", 0, ""), func(h *tar.Header) { h.Linkname = "/t/suid" }),
		with(of(tar.TypeSymlink, "t/symlink", 0o777, ""), func(h *tar.Header) { h.Linkname = "../t/" + long }),
		with(of(tar.TypeChar, "t/char", 0o666, ""), func(h *tar.Header) { h.Devmajor, h.Devminor = 1, 300 }),
		with(of(tar.TypeBlock, "t/block", 0o640, ""), func(h *tar.Header) { h.Devmajor, h.Devminor = 259, 7 }),
		of(tar.TypeFifo, "t/fifo", 0o644, ""), of(tar.TypeReg, "t/"+long, 0o444, "long"), of(tar.TypeReg, "t/"+deep+"file", 0o644, "deep"),
		of(tar.TypeReg, "t/empty", 0o644, ""), of(tar.TypeReg, "t/big", 0o644, big), of(tar.TypeReg, "t/sparse", 0o644, sparse),
		with(of(tar.TypeReg, "t/ancient", 0o644, ""), func(h *tar.Header) { h.ModTime = time.Unix(-86400*365, 5) }),
		with(of(tar.TypeReg, "t/future", 0o644, ""), func(h *tar.Header) { h.ModTime = time.Unix(1<<33, 0) }),
		of(tar.TypeReg, "t/gone", 0o644, "gone"), of(tar.TypeReg, "t/replaced", 0o644, "old"),
		of(tar.TypeDir, "t/opaque", 0o755, ""), of(tar.TypeReg, "t/opaque/old", 0o644, "old"), of(tar.TypeDir, "t/merged", 0o755, ""), of(tar.TypeReg, "t/merged/old", 0o644, "old"),
	)
	upper := layer(
		t,
		of(tar.TypeReg, "t/.wh.gone", 0, ""), of(tar.TypeReg, "t/replaced", 0o640, "new"),
		of(tar.TypeDir, "t/opaque", 0o711, ""), of(tar.TypeReg, "t/opaque/.wh..wh..opq", 0, ""), of(tar.TypeReg, "t/opaque/new", 0o644, "new"),
		of(tar.TypeDir, "t/merged", 0o700, ""), of(tar.TypeReg, "t/merged/new", 0o644, "new"),
		with(of(tar.TypeLink, "t/merged/capable", 0, ""), func(h *tar.Header) { h.Linkname = "t/capable" }),
	)
	archive := filepath.Join(t.TempDir(), "every.tar")
	save(t, archive, "every:1", nil, lower, upper)
	h.ok("image", "import", archive)

	const file, dir = 0o100000, 0o040000
	reg := func(path string, mode uint32, data string) entry {
		sum := sha256.Sum256([]byte(data))
		return entry{Path: path, Mode: file | mode, Links: 1, Size: int64(len(data)), Sum: hex.EncodeToString(sum[:])}
	}
	but := func(e entry, change func(*entry)) entry { change(&e); return e }
	folder := func(path string, mode uint32, links uint64) entry {
		return entry{Path: path, Mode: dir | mode, Links: links}
	}
	xattrs := map[string]string{
		"security.capability": hex.EncodeToString([]byte(capability)), "user.note": "610162", "trusted.mine": "74",
	}
	suid := func(path string) entry {
		return but(reg(path, 0o6755, "suid"), func(e *entry) { e.UID, e.GID, e.Links = 12, 34, 3 })
	}
	capable := func(path string) entry {
		return but(reg(path, 0o755, "ping"), func(e *entry) { e.Xattrs, e.Links = xattrs, 2 })
	}
	want := []entry{
		folder("/t", 0o1777, 5), suid("/t/suid"), suid("/t/suid2"), suid("/t/suid3"), capable("/t/capable"), capable("/t/merged/capable"),
		but(reg("/t/owned", 0o600, "owned"), func(e *entry) { e.UID, e.GID = 1234567, 4294967294 }),
		{Path: "/t/symlink", Mode: 0o120777, Links: 1, Size: 260, Target: "../t/" + long},
		{Path: "/t/char", Mode: 0o020666, Links: 1, Device: 1<<8 | 300&0xff | (300&^0xff)<<12},
		{Path: "/t/block", Mode: 0o060640, Links: 1, Device: 259<<8 | 7},
		{Path: "/t/fifo", Mode: 0o010644, Links: 1},
		reg("/t/"+long, 0o444, "long"), reg("/t/"+deep+"file", 0o644, "deep"), reg("/t/empty", 0o644, ""), reg("/t/big", 0o644, big), reg("/t/sparse", 0o644, sparse),
		but(reg("/t/ancient", 0o644, ""), func(e *entry) { e.Sec, e.Nsec = -86400*365, 5 }),
		but(reg("/t/future", 0o644, ""), func(e *entry) { e.Sec = 1 << 33 }),
		reg("/t/replaced", 0o640, "new"), folder("/t/opaque", 0o711, 2), reg("/t/opaque/new", 0o644, "new"),
		folder("/t/merged", 0o700, 2), reg("/t/merged/new", 0o644, "new"), reg("/t/merged/old", 0o644, "old"),
	}
	for i := range 40 {
		links := uint64(3)
		if i == 39 {
			links = 2
		}
		want = append(want, folder("/t/"+strings.TrimSuffix(strings.Repeat("deep/", i+1), "/"), 0o755, links))
	}
	table := map[string]entry{}
	for _, e := range want {
		if e.Sec == 0 {
			e.Sec, e.Nsec = stamp.Unix(), int64(stamp.Nanosecond())
		}
		table[e.Path] = e
	}
	got := map[string]entry{}
	for line := range strings.Lines(h.ok("run", "--image", "every:1", "--", "/lister", "/t")) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		got[e.Path] = e
	}
	for path, e := range table {
		g, ok := got[path]
		if e.Mode&dir == dir && e.Mode&file == 0 {
			g.Links, e.Links = 0, 0 // overlays count no folders
		}
		if !ok || !same(g, e) {
			t.Errorf("%.60s\n got  %+v\n want %+v", path, g, e)
		}
		delete(got, path)
	}
	for path := range got {
		t.Errorf("%.60s is there", path)
	}
}

func same(a, b entry) bool {
	equal := maps.Equal(a.Xattrs, b.Xattrs)
	a.Xattrs, b.Xattrs = nil, nil
	return equal && fmt.Sprint(a) == fmt.Sprint(b)
}

// started is what a program was started with.
type started struct {
	Dir  string   `json:"dir"`
	UID  int      `json:"uid"`
	GID  int      `json:"gid"`
	Env  []string `json:"env"`
	Args string   `json:"args"`
}

// imageDefaults starts programs in an image that has nothing but one, not even a passwd
// file, and says how they are to be started.
func imageDefaults(t *testing.T, h *host, program []byte) {
	archive := filepath.Join(t.TempDir(), "bare.tar")
	save(t, archive, "bare:1", map[string]any{
		"Env": []string{"PATH=/tools", "GREETING=hello"}, "WorkingDir": "/made/for/it", "User": "1234:5678",
		"Entrypoint": []string{"/no/such"}, "Cmd": []string{"--ignored"},
	}, layer(t, member{tar.Header{Typeflag: tar.TypeReg, Name: "tools/lister", Mode: 0o755}, string(program)}))
	h.ok("image", "import", archive)
	start := func(args ...string) started {
		t.Helper()
		var s started
		out := h.ok(append(append([]string{"run", "--image", "bare:1"}, args...), "--", "lister")...)
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return s
	}
	got := start()
	// Behind the image's own folders may be that of the host's programs.
	ownPath := slices.ContainsFunc(got.Env, func(e string) bool { return e == "PATH=/tools" || e == "PATH=/tools:/run/aegis/host/bin" })
	if got.Dir != "/made/for/it" || got.UID != 1234 || got.GID != 5678 || !ownPath || !slices.Contains(got.Env, "GREETING=hello") {
		t.Errorf("by the image: %+v", got)
	}
	got = start("--env", "GREETING=hi", "--workdir", "/", "--user", "0")
	if got.Dir != "/" || got.UID != 0 || !slices.Contains(got.Env, "GREETING=hi") || slices.Contains(got.Env, "GREETING=hello") {
		t.Errorf("by options: %+v", got)
	}
	if r := h.try("run", "--image", "bare:1", "--", "sh"); r.status != 127 {
		t.Errorf("a command that the image has not: status %d, %s", r.status, r.stderr)
	}
	if r := h.try("run", "--image", "no/such:1", "--pull", "never", "--", "sh"); r.status != 125 || !strings.Contains(r.stderr, "image pull") {
		t.Errorf("an image that is not here: status %d, %s", r.status, r.stderr)
	}
}

// movingName gives a name to another image while an instance stands on the first.
func movingName(t *testing.T, h *host, program []byte) {
	archive := filepath.Join(t.TempDir(), "app.tar")
	make := func(version string) {
		t.Helper()
		save(t, archive, "app:1", nil, layer(t, member{tar.Header{Typeflag: tar.TypeReg, Name: "lister", Mode: 0o755}, string(program)},
			member{tar.Header{Typeflag: tar.TypeReg, Name: "t/" + version, Mode: 0o644}, ""}))
		h.ok("image", "import", archive)
	}
	make("one")
	h.ok("instance", "start", "--name", "app", "--image", "app:1", "--", "/lister", "/t")
	make("two")
	// Its program ends by itself.
	eventually(t, "it is started again", func() bool { return h.try("instance", "start", "--name", "app").status == 0 })
	var logs string
	eventually(t, "it has run twice", func() bool {
		logs = h.ok("logs", "app")
		return strings.Count(logs, "process exited") == 2
	})
	if strings.Count(logs, `"/t/one"`) != 2 || strings.Contains(logs, `"/t/two"`) {
		t.Errorf("after its name moved the instance has another image:\n%s", logs)
	}
	if out := h.ok("run", "--image", "app:1", "--", "/lister", "/t"); !strings.Contains(out, "/t/two") {
		t.Errorf("a new one has %s", out)
	}
	var before, after []struct {
		ID     string   `json:"id"`
		UsedBy []string `json:"used_by"`
	}
	decode := func(to any) {
		if err := json.Unmarshal([]byte(h.ok("image", "list", "--json")), to); err != nil {
			t.Fatal(err)
		}
	}
	decode(&before)
	h.ok("instance", "delete", "app")
	eventually(t, "the image that nobody needs any more is gone", func() bool {
		after = nil
		decode(&after)
		return len(after) == len(before)-1
	})
	h.ok("image", "rm", "app:1")
}

// pullAndRun runs an image that only a registry has.
func pullAndRun(t *testing.T, h *host, program []byte) {
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError))))
	defer server.Close()
	full := strings.TrimPrefix(server.URL, "http://") + "/some/app:1"
	push := func(version string) {
		t.Helper()
		data := layer(t, member{tar.Header{Typeflag: tar.TypeReg, Name: "lister", Mode: 0o755}, string(program)},
			member{tar.Header{Typeflag: tar.TypeReg, Name: "t/" + version, Mode: 0o644}, ""})
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		img, err := mutate.AppendLayers(empty.Image, l)
		if err == nil {
			img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: rootOf(t, img)})
		}
		ref, refErr := name.ParseReference(full)
		if err := errors.Join(err, refErr); err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		return h.ok(append(append([]string{"run", "--image", full}, args...), "--", "/lister", "/t")...)
	}
	push("one")
	h.ok("image", "pull", "--warm", full)
	if out := run(); !strings.Contains(out, "/t/one") {
		t.Errorf("the image has %s", out)
	}
	push("two")
	if out := run(); !strings.Contains(out, "/t/one") {
		t.Errorf("without asking the registry: %s", out)
	}
	if out := run("--pull", "always"); !strings.Contains(out, "/t/two") {
		t.Errorf("after the tag moved: %s", out)
	}
	h.ok("image", "rm", full)
}

func rootOf(t *testing.T, img v1.Image) v1.RootFS {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c.RootFS
}

// commitInstance installs a package in an instance, and runs an image of it.
func commitInstance(t *testing.T, h *host) {
	deb := filepath.Join(t.TempDir(), "aegis-hello.deb")
	write(t, deb, debPackage(t), 0o600)
	h.ok("instance", "start", "--name", "work", "--", "sleep", "infinity")
	h.ok("cp", deb, "work:/tmp/aegis-hello.deb")
	h.ok("exec", "work", "--", "sh", "-ec", `apt-get install -y /tmp/aegis-hello.deb
		rm /tmp/aegis-hello.deb /etc/debian_version; echo changed > /etc/issue; chown 7:8 /etc/issue
		mkfifo /root/pipe; mknod /root/null c 1 3; ln /root/pipe /root/pipe2; rm -r /usr/share/git-core; mkdir /usr/share/git-core`)
	h.ok("image", "commit", "work", "tools:1")
	if out := h.ok("exec", "work", "--", "echo", "goes on"); out != "goes on\n" {
		t.Errorf("after the commit the instance says %q", out)
	}
	h.ok("instance", "delete", "work")
	const look = `aegis-hello; dpkg-query -W -f '${Status}\n' aegis-hello; cat /etc/issue; stat -c '%u:%g' /etc/issue
		test -e /etc/debian_version || echo removed; stat -c '%F %h' /root/pipe; stat -c '%F %t,%T' /root/null; ls /usr/share/git-core | wc -l`
	got := h.ok("run", "--image", "tools:1", "--name", "another", "--", "sh", "-ec", look+"; hostname; cat /etc/hostname")
	want := "hello from a package\ninstall ok installed\nchanged\n7:8\nremoved\nfifo 2\ncharacter special file 1,3\n0\nanother\nanother\n"
	if got != want {
		t.Errorf("the new instance says\n%swant\n%s", got, want)
	}
	h.ok("image", "rm", "tools:1")
	if left, err := filepath.Glob(filepath.Join(h.home, "data/images/roots/.unfinished-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// debPackage makes a Debian package with one program.
func debPackage(t *testing.T) []byte {
	t.Helper()
	zipped := func(members ...member) string {
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		_, err := z.Write(layer(t, members...))
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		return buf.String()
	}
	control := "Package: aegis-hello\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: says hello\n"
	var ar strings.Builder
	ar.WriteString("!<arch>\n")
	for _, m := range []struct{ name, data string }{
		{"debian-binary", "2.0\n"},
		{"control.tar.gz", zipped(member{tar.Header{Typeflag: tar.TypeReg, Name: "./control", Mode: 0o644}, control})},
		{"data.tar.gz", zipped(member{tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755}, ""}, member{tar.Header{Typeflag: tar.TypeDir, Name: "./usr/bin/", Mode: 0o755}, ""},
			member{tar.Header{Typeflag: tar.TypeReg, Name: "./usr/bin/aegis-hello", Mode: 0o755}, "#!/bin/sh\necho hello from a package\n"})},
	} {
		fmt.Fprintf(&ar, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m.name, 0, 0, 0, "100644", len(m.data), m.data)
		if len(m.data)%2 == 1 {
			ar.WriteByte('\n')
		}
	}
	return []byte(ar.String())
}
