package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// member is one member of an archive.
type member struct {
	tar.Header
	data string
}

var when = time.Date(2024, 2, 29, 12, 30, 15, 123456789, time.UTC)

func archiveOf(tb testing.TB, members ...member) io.Reader {
	tb.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, m := range members {
		h := m.Header
		h.Size = int64(len(m.data))
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = when
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return &buf
}

func file(name string, mode int64, data string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data}
}

func dir(name string, mode int64) member {
	return member{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, ""}
}

func link(typ byte, name, target string) member {
	return member{tar.Header{Typeflag: typ, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// build writes an image of archives and opens it with a reader that we did not
// write.
func build(t *testing.T, archives ...io.Reader) (fs.FS, []byte, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b, err := NewBuilder(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archives {
		if err := b.AddTar(t.Context(), a); err != nil {
			return nil, nil, err
		}
	}
	if err := b.Finish(); err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	img, err := erofs.Open(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("open image: %v", err)
	}
	return img, data, nil
}

func mustBuild(t *testing.T, archives ...io.Reader) fs.FS {
	t.Helper()
	img, _, err := build(t, archives...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func statOf(t *testing.T, img fs.FS, name string) *erofs.Stat {
	t.Helper()
	fi, err := fs.Lstat(img, name)
	if err != nil {
		t.Fatal(err)
	}
	st, ok := fi.Sys().(*erofs.Stat)
	if !ok {
		t.Fatalf("%s: Sys is a %T", name, fi.Sys())
	}
	return st
}

func TestEverythingAboutAFileIsKept(t *testing.T) {
	suid := file("./usr/bin/su", 0o4755, "su")
	suid.Uid, suid.Gid = 0, 42
	capable := file("usr/bin/ping", 0o755, "ping")
	capable.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00",
		"SCHILY.xattr.user.note":           "a value",
		"SCHILY.xattr.system.nfs4_acl":     "cannot be held",
	}
	owned := file("home/me/file", 0o600, strings.Repeat("x", 4097))
	owned.Uid, owned.Gid = 123456, 4294967294
	null := member{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	disk := member{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sdzz", Mode: 0o660, Devmajor: 259, Devminor: 300}, ""}
	pipe := member{tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o644}, ""}
	img := mustBuild(t, archiveOf(t, dir("./", 0o751), dir("tmp", 0o1777), suid, capable, owned, null, disk, pipe,
		file("empty", 0o644, ""), file("block", 0o644, strings.Repeat("b", 4096)),
		link(tar.TypeLink, "usr/bin/su2", "usr/bin/su"), link(tar.TypeSymlink, "bin", "usr/bin")))

	for _, c := range []struct {
		name     string
		mode     fs.FileMode
		uid, gid uint32
		nlink    int
		rdev     uint32
	}{
		{".", fs.ModeDir | 0o751, 0, 0, 7, 0},
		{"tmp", fs.ModeDir | fs.ModeSticky | 0o777, 0, 0, 2, 0},
		{"usr", fs.ModeDir | 0o755, 0, 0, 3, 0},
		{"usr/bin/su", fs.ModeSetuid | 0o755, 0, 42, 2, 0},
		{"usr/bin/su2", fs.ModeSetuid | 0o755, 0, 42, 2, 0},
		{"home/me/file", 0o600, 123456, 4294967294, 1, 0},
		{"dev/null", fs.ModeDevice | fs.ModeCharDevice | 0o666, 0, 0, 1, 0x103},
		{"dev/sdzz", fs.ModeDevice | 0o660, 0, 0, 1, 300&0xff | 259<<8 | 300&^0xff<<12},
		{"run/pipe", fs.ModeNamedPipe | 0o644, 0, 0, 1, 0},
		{"bin", fs.ModeSymlink | 0o777, 0, 0, 1, 0},
	} {
		st := statOf(t, img, c.name)
		if st.Mode != c.mode || st.UID != c.uid || st.GID != c.gid || st.Nlink != c.nlink {
			t.Errorf("%s: mode %v, owner %d:%d, %d links; want %v, %d:%d, %d",
				c.name, st.Mode, st.UID, st.GID, st.Nlink, c.mode, c.uid, c.gid, c.nlink)
		}
		if c.rdev != 0 && st.Rdev != c.rdev {
			t.Errorf("%s: device %#x, want %#x", c.name, st.Rdev, c.rdev)
		}
	}
	if a, b := statOf(t, img, "usr/bin/su"), statOf(t, img, "usr/bin/su2"); a.Ino != b.Ino {
		t.Errorf("hard links have the inodes %d and %d", a.Ino, b.Ino)
	}
	if st := statOf(t, img, "empty"); st.Mtime != uint64(when.Unix()) || st.MtimeNs != 123456789 {
		t.Errorf("time %d.%09d, want %v", st.Mtime, st.MtimeNs, when)
	}
	st := statOf(t, img, "usr/bin/ping")
	want := map[string]string{"security.capability": capable.PAXRecords["SCHILY.xattr.security.capability"], "user.note": "a value"}
	if fmt.Sprint(st.Xattrs) != fmt.Sprint(want) {
		t.Errorf("attributes %q, want %q", st.Xattrs, want)
	}
	for name, want := range map[string]string{
		"usr/bin/su2": "su", "bin/ping": "ping", "home/me/file": owned.data, "empty": "", "block": strings.Repeat("b", 4096),
	} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != want {
			t.Errorf("%s holds %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
}

func TestLaterMembersReplaceEarlierOnes(t *testing.T) {
	img := mustBuild(t,
		archiveOf(t, file("a/one", 0o644, "old"), file("a/two", 0o644, "two"), file("b", 0o644, "b"), link(tar.TypeLink, "b2", "b"),
			dir("gone", 0o755), file("gone/deep/file", 0o644, "x")),
		archiveOf(t, file("a/one", 0o600, "new"), dir("a", 0o700), file("b", 0o644, "other"), file("gone", 0o644, "a file now")))
	for name, want := range map[string]string{"a/one": "new", "a/two": "two", "b": "other", "b2": "b", "gone": "a file now"} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
	if st := statOf(t, img, "a"); st.Mode.Perm() != 0o700 {
		t.Errorf("a has mode %v, want the later one", st.Mode)
	}
	if st := statOf(t, img, "b2"); st.Nlink != 1 {
		t.Errorf("b2 has %d links after the other was replaced, want 1", st.Nlink)
	}
	if st := statOf(t, img, "."); st.Nlink != 3 {
		t.Errorf("the root has %d links with one directory left, want 3", st.Nlink)
	}
}

func TestSymbolicLinksStayInside(t *testing.T) {
	img := mustBuild(t, archiveOf(t,
		dir("usr/lib", 0o755), link(tar.TypeSymlink, "lib", "/usr/lib"), link(tar.TypeSymlink, "up", "../../.."),
		link(tar.TypeSymlink, "usr/self", "../lib/."),
		file("lib/in", 0o644, "1"), file("up/out", 0o644, "2"), file("usr/self/via", 0o644, "3")))
	for name, want := range map[string]string{"usr/lib/in": "1", "out": "2", "usr/lib/via": "3"} {
		if got, err := fs.ReadFile(img, name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
}

func TestLargeDirectoriesAndLongNames(t *testing.T) {
	var members []member
	names := map[string]bool{}
	for i := range 3000 {
		name := fmt.Sprintf("dir/%s-%04d", strings.Repeat("n", i%240), i)
		names[filepath.Base(name)] = true
		members = append(members, file(name, 0o644, strconv.Itoa(i)))
	}
	long := strings.Repeat("t", maxLinkTarget)
	attr := link(tar.TypeSymlink, "attr", strings.Repeat("u", 4000))
	attr.PAXRecords = map[string]string{"SCHILY.xattr.trusted.big": strings.Repeat("v", 5000)}
	members = append(members, link(tar.TypeSymlink, "long", long), attr,
		file("dir2/"+strings.Repeat("m", maxName), 0o644, "max"))
	img := mustBuild(t, archiveOf(t, members...))
	entries, err := fs.ReadDir(img, "dir")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		delete(names, e.Name())
	}
	if len(entries) != 3000 || len(names) != 0 {
		t.Errorf("the directory has %d entries and lacks %d", len(entries), len(names))
	}
	if got, err := fs.ReadFile(img, "dir/"+strings.Repeat("n", 2999%240)+"-2999"); err != nil || string(got) != "2999" {
		t.Errorf("the last file holds %q, %v", got, err)
	}
	for name, want := range map[string]string{"long": long, "attr": attr.Linkname} {
		if got, err := fs.ReadLink(img, name); err != nil || got != want {
			t.Errorf("%s leads to %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	if st := statOf(t, img, "attr"); len(st.Xattrs["trusted.big"]) != 5000 {
		t.Errorf("the link's attribute has %d bytes", len(st.Xattrs["trusted.big"]))
	}
}

func TestBadArchives(t *testing.T) {
	for name, members := range map[string][]member{
		"climbs":              {file("a/../../etc/passwd", 0o644, "")},
		"hard link to none":   {link(tar.TypeLink, "a", "b")},
		"hard link to a dir":  {dir("d", 0o755), link(tar.TypeLink, "a", "d")},
		"hard link climbs":    {link(tar.TypeLink, "a", "../b")},
		"loop":                {link(tar.TypeSymlink, "a", "b"), link(tar.TypeSymlink, "b", "a"), file("a/x", 0o644, "")},
		"file as directory":   {file("a", 0o644, ""), file("a/b", 0o644, "")},
		"name too long":       {file(strings.Repeat("x", maxName+1), 0o644, "")},
		"target too long":     {link(tar.TypeSymlink, "a", strings.Repeat("x", maxLinkTarget+1))},
		"too deep":            {file(strings.Repeat("d/", maxPathDepth)+"f", 0o644, "")},
		"root is a file":      {{tar.Header{Typeflag: tar.TypeFifo, Name: "."}, ""}},
		"too many attributes": {{tar.Header{Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{"SCHILY.xattr.user.a": strings.Repeat("x", maxXattrs+1)}}, ""}},
	} {
		_, _, err := build(t, archiveOf(t, members...))
		if fault.KindOf(err) != fault.Invalid || fault.BlameOf(err) != fault.Image {
			t.Errorf("%s: %v (%s, %s), want invalid by image", name, err, fault.KindOf(err), fault.BlameOf(err))
		}
	}
}

func TestHardLinkToItself(t *testing.T) {
	img := mustBuild(t, archiveOf(t, file("a", 0o644, "data"), link(tar.TypeLink, "a", "./a")))
	if st := statOf(t, img, "a"); st.Nlink != 1 {
		t.Errorf("a has %d links, want 1", st.Nlink)
	}
	if got, err := fs.ReadFile(img, "a"); err != nil || string(got) != "data" {
		t.Errorf("a holds %q, %v", got, err)
	}
}

// TestSparseFilesAreBounded: a few bytes of archive must not become a full disk.
func TestSparseFilesAreBounded(t *testing.T) {
	h := member{tar.Header{Typeflag: tar.TypeReg, Name: "a", PAXRecords: map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": strconv.FormatInt(int64(DefaultLimits().Data)+1, 10),
	}}, "0\n" + strings.Repeat("\x00", 510)}
	data := sparseArchive(t, h)
	if _, _, err := build(t, data); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a huge sparse file: %v, want invalid", err)
	}
}

// sparseArchive writes what archive/tar reads but refuses to write: PAX records of
// a sparse file.
func sparseArchive(t *testing.T, m member) io.Reader {
	t.Helper()
	var records strings.Builder
	for k, v := range m.PAXRecords {
		line := " " + k + "=" + v + "\n"
		n := len(line) + 1
		for len(strconv.Itoa(n))+len(line) != n {
			n++
		}
		records.WriteString(strconv.Itoa(n) + line)
	}
	var buf bytes.Buffer
	for _, part := range []struct {
		typ  byte
		data string
	}{{tar.TypeXHeader, records.String()}, {tar.TypeReg, m.data}} {
		block := make([]byte, 512)
		copy(block, "a")
		copy(block[100:], "0000644\x000000000\x000000000\x00"+fmt.Sprintf("%011o\x00%011o\x00", len(part.data), 0)+"        "+string(part.typ))
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, b := range block {
			sum += int(b)
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		buf.Write(block)
		buf.WriteString(part.data + strings.Repeat("\x00", (512-len(part.data)%512)%512))
	}
	buf.Write(make([]byte, 1024))
	return &buf
}

func TestTruncatedArchive(t *testing.T) {
	whole, err := io.ReadAll(archiveOf(t, file("a", 0o644, strings.Repeat("x", 3000))))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := build(t, bytes.NewReader(whole[:2000])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an archive gives %v, want unexpected EOF", err)
	}
}

func TestSameArchiveSameImage(t *testing.T) {
	var images [2][]byte
	for i := range images {
		_, data, err := build(t, archiveOf(t, file("b", 0o644, "b"), file("a/x", 0o644, "x"), dir("c", 0o755), file("a/y", 0o600, "")))
		if err != nil {
			t.Fatal(err)
		}
		images[i] = data
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("the images differ")
	}
}

// TestDataIsNotHeldInMemory streams a file much larger than what may be allocated.
func TestDataIsNotHeldInMemory(t *testing.T) {
	const length = 256 << 20
	r, w := io.Pipe()
	go func() { // ends when the archive is read or the test closes r
		tw := tar.NewWriter(w)
		err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: length})
		for chunk, n := make([]byte, 1<<20), 0; err == nil && n < length; n += len(chunk) {
			_, err = tw.Write(chunk)
		}
		_ = w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	defer func() { _ = r.Close() }()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := NewBuilder(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.AddTar(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d MB were allocated for a file of %d MB", got>>20, length>>20)
	}
}

func FuzzAddTar(f *testing.F) {
	for _, members := range [][]member{
		{dir("d", 0o755), file("d/f", 0o4755, "data"), link(tar.TypeLink, "h", "d/f"), link(tar.TypeSymlink, "s", "../d")},
		{link(tar.TypeSymlink, "a", "b"), file("a/b", 0o644, ""), file("a", 0o644, "")},
	} {
		data, err := io.ReadAll(archiveOf(f, members...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		img, _, err := build(t, bytes.NewReader(data))
		if err != nil {
			return
		}
		err = fs.WalkDir(img, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			file, err := img.Open(path)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, file)
			return errors.Join(err, file.Close())
		})
		if err != nil {
			t.Errorf("walk the image: %v", err)
		}
	})
}
