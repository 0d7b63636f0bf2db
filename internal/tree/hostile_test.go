package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// prison is a target with a world around it that must not change.
type prison struct {
	t      *testing.T
	world  string
	target string
	before string
}

func newPrison(t *testing.T) *prison {
	t.Helper()
	p := &prison{t: t, world: t.TempDir()}
	p.target = filepath.Join(p.world, "target")
	for _, err := range []error{
		os.Mkdir(p.target, 0o755),
		os.Mkdir(filepath.Join(p.world, "etc"), 0o755),
		os.WriteFile(filepath.Join(p.world, "etc/passwd"), []byte("root"), 0o600),
		os.WriteFile(filepath.Join(p.world, "secret"), []byte("secret"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.before = p.outside()
	return p
}

// outside describes everything but what is in the target.
func (p *prison) outside() string {
	var lines []string
	for line := range strings.Lines(describe(p.t, p.world)) {
		if !strings.HasPrefix(line, `"target`) && !strings.HasPrefix(line, `"."`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// inside checks what must hold of anything that was unpacked.
func (p *prison) check() {
	p.t.Helper()
	if after := p.outside(); after != p.before {
		p.t.Errorf("outside of the target\n%s\nbecame\n%s", p.before, after)
	}
	_ = filepath.WalkDir(p.target, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if special(fi.Mode()) || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			p.t.Errorf("%s is %v", path, fi.Mode())
		}
		if st, ok := statOf(fi); ok && int(st.Uid) != os.Getuid() {
			p.t.Errorf("%s belongs to %d", path, st.Uid)
		}
		if strings.HasPrefix(d.Name(), ".aegis-cp-") {
			p.t.Errorf("%s is left", path)
		}
		return nil
	})
}

// archive makes a tar stream. Nothing is checked: it is an enemy's.
func archive(tb testing.TB, entries ...tar.Header) []byte {
	tb.Helper()
	var b bytes.Buffer
	for _, h := range entries {
		w := tar.NewWriter(&b)
		data := []byte(nil)
		if h.Typeflag == tar.TypeReg || h.Typeflag == 0 {
			data = []byte("evil")
			h.Size = int64(len(data))
		}
		if h.Mode == 0 {
			h.Mode = 0o777
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			tb.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			tb.Fatal(err)
		}
	}
	return append(b.Bytes(), make([]byte, 1024)...)
}

func dirEntry(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func file(name string) tar.Header     { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
func sym(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

var hostile = []struct {
	name    string
	entries []tar.Header
	err     string // part of it; "" succeeds
}{
	{"dot dot", []tar.Header{dirEntry("."), file("./../secret")}, "has the name"},
	{"dot dot inside", []tar.Header{dirEntry("."), file("./a/../../secret")}, "has the name"},
	{"root is dot dot", []tar.Header{dirEntry("..")}, "has the name"},
	{"absolute", []tar.Header{dirEntry("."), file("/etc/passwd")}, "has the name"},
	{"absolute root", []tar.Header{file("/etc")}, "has the name"},
	{"beside the root", []tar.Header{dirEntry("a"), file("b")}, "not below"},
	{"prefix of the root", []tar.Header{dirEntry("a"), file("ab")}, "not below"},
	{"through a link up", []tar.Header{dirEntry("."), sym("./l", ".."), file("./l/secret")}, "go through a symlink"},
	{"through an absolute link", []tar.Header{dirEntry("."), sym("./l", "/etc"), file("./l/passwd")}, "go through a symlink"},
	{"through a link inside", []tar.Header{dirEntry("."), dirEntry("./d"), sym("./l", "d"), file("./l/x")}, "go through a symlink"},
	{"through a deep link", []tar.Header{dirEntry("."), dirEntry("./d"), sym("./d/l", "../.."), dirEntry("./d/l/etc"), file("./d/l/etc/passwd")}, "go through a symlink"},
	{"folder over a link", []tar.Header{dirEntry("."), sym("./l", ".."), dirEntry("./l"), file("./l/secret")}, "go through a symlink"},
	{"link that is swapped", []tar.Header{dirEntry("."), dirEntry("./d"), file("./d/x"), sym("./d", ".."), file("./d/secret")}, "would replace a folder"},
	{"file over a link", []tar.Header{dirEntry("."), sym("./l", "../secret"), file("./l")}, ""},
	{"root is a link", []tar.Header{sym("r", ".."), file("r/secret")}, "go through a symlink"},
	{"hard link out", []tar.Header{dirEntry("."), hard("./h", "../secret"), file("./h")}, "has the name"},
	{"absolute hard link", []tar.Header{dirEntry("."), hard("./h", "/etc/passwd")}, "has the name"},
	{"hard link through a link", []tar.Header{dirEntry("."), sym("./l", ".."), hard("./h", "./l/secret")}, "go through a symlink"},
	{"hard link to a link out", []tar.Header{dirEntry("."), sym("./l", "../secret"), hard("./h", "./l"), file("./h")}, ""},
	{"hard link to itself", []tar.Header{dirEntry("."), file("./h"), hard("./h", "./h")}, "is a link to"},
	{"hard link to nothing", []tar.Header{dirEntry("."), hard("./h", "./none")}, "no such file"},
	{"hard link to a folder", []tar.Header{dirEntry("."), dirEntry("./d"), hard("./h", "./d")}, "is a link to a folder"},
	{"hard link to the root", []tar.Header{dirEntry("."), hard("./h", ".")}, "is a link to"},
	{"hard link beside the root", []tar.Header{dirEntry("a"), hard("a/h", "b")}, "not below"},
	{"root is a hard link", []tar.Header{hard("h", "h")}, "is a link to"},
	{"device", []tar.Header{dirEntry("."), {Name: "./null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, {Name: "./disk", Typeflag: tar.TypeBlock}, {Name: "./pipe", Typeflag: tar.TypeFifo}}, ""},
	{"only a device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar}}, "empty"},
	{"set-user-ID", []tar.Header{dirEntry("."), {Name: "./su", Typeflag: tar.TypeReg, Mode: 0o6777, Uid: 0}, {Name: "./d", Typeflag: tar.TypeDir, Mode: 0o7777}}, ""},
	{"other owners", []tar.Header{dirEntry("."), {Name: "./f", Typeflag: tar.TypeReg, Uid: 12345, Gid: 54321, Uname: "nobody"}}, ""},
	{"newline", []tar.Header{dirEntry("."), file("./a\nb\x1b[31m")}, ""},
	{"twice", []tar.Header{dirEntry("."), file("./f"), file("./f"), dirEntry("./d"), dirEntry("./d"), dirEntry(".")}, ""},
	{"folder over a file", []tar.Header{dirEntry("."), file("./f"), dirEntry("./f")}, "go through a file"},
	{"file over a folder", []tar.Header{dirEntry("."), dirEntry("./f"), file("./f")}, "would replace a folder"},
	{"below a file", []tar.Header{dirEntry("."), file("./f"), file("./f/g")}, "go through a file"},
	{"root twice, then a file", []tar.Header{dirEntry("r"), file("r")}, "would replace a folder"},
	{"root is a nameless file", []tar.Header{file(".")}, "no folder"},
	{"link to nowhere", []tar.Header{dirEntry("."), sym("./l", strings.Repeat("x", 5000))}, "too long"},
	{"long name", []tar.Header{dirEntry("."), file("./" + strings.Repeat("x", 300))}, "too long"},
	{"endless name", []tar.Header{dirEntry("."), file("./" + strings.Repeat("x/", 40_000) + "x")}, "has the name"},
	{"deep", []tar.Header{dirEntry("."), file("./" + strings.Repeat("x/", 2000) + "x")}, "too deep"},
	{"unknown type", []tar.Header{dirEntry("."), {Name: "./x", Typeflag: '9'}}, "is of type"},
	{"absurd times", []tar.Header{dirEntry("."), {Name: "./x", Typeflag: tar.TypeReg, ModTime: time.Unix(1<<40, 0)}}, ""},
	{"nothing", nil, "empty"},
}

func TestHostile(t *testing.T) {
	for _, c := range hostile {
		t.Run(c.name, func(t *testing.T) {
			p := newPrison(t)
			dst, err := OpenTarget(p.target)
			if err != nil {
				t.Fatal(err)
			}
			defer shut(t, dst)
			err = dst.Unpack(bytes.NewReader(archive(t, c.entries...)), Options{})
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("err = %v, want ...%s...", err, c.err)
			}
			p.check()
		})
	}
}

// TestHostileStreams are archives that tar.Writer does not write.
func TestHostileStreams(t *testing.T) {
	good := archive(t, dirEntry("."), file("./f"))
	huge := archive(t, dirEntry("."))
	huge = huge[:len(huge)-1024]
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "./huge", Typeflag: tar.TypeReg, Size: 1 << 60, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	huge = append(huge, b.Bytes()...)
	for _, c := range []struct {
		name   string
		stream io.Reader
		err    string
	}{
		{"noise", strings.NewReader(strings.Repeat("noise ", 1000)), "not a tar archive"},
		{"ends in a header", bytes.NewReader(good[:700]), "ends in the middle"},
		{"ends in a file", bytes.NewReader(good[:1026]), "ends in the middle"},
		{"larger than the disk", io.MultiReader(bytes.NewReader(huge), zeros{}), "no space left"},
		{"no end", io.MultiReader(bytes.NewReader(good), zeros{}), "does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPrison(t)
			dst, err := OpenTarget(p.target)
			if err != nil {
				t.Fatal(err)
			}
			defer shut(t, dst)
			if err := dst.Unpack(c.stream, Options{}); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("err = %v, want ...%s...", err, c.err)
			}
			p.check()
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestOwnersOfHostile: with owners kept, nothing may have an owner that does not fit.
func TestOwnersOfHostile(t *testing.T) {
	p := newPrison(t)
	dst, err := OpenTarget(p.target)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, dst)
	h := file("./f")
	h.Uid = 1 << 32
	err = dst.Unpack(bytes.NewReader(archive(t, dirEntry("."), h)), Options{Owners: true})
	if _, refused := errors.AsType[*Error](err); !refused {
		t.Errorf("err = %v, want a refusal", err)
	}
	p.check()
}

func FuzzUnpack(f *testing.F) {
	for _, c := range hostile {
		if b := archive(f, c.entries...); len(b) < 8<<10 { // large ones make it slow
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		p := newPrison(t)
		dst, err := OpenTarget(p.target)
		if err != nil {
			t.Fatal(err)
		}
		defer shut(t, dst)
		_ = dst.Unpack(bytes.NewReader(stream), Options{}) // whatever it says
		p.check()
	})
}
