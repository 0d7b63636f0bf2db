package machine

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// toolSet is a disk with programs for the guest, by what is in it: hex digits of a digest
// of names and contents, or "" for no disk.
type toolSet string

// toolsForm changes when the same programs are to make another disk.
const toolsForm = "1"

var toolSetForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// toolbox makes the disks with programs that are brought into VMs without being part of
// an image: those of every VM, and those of its kit. Each is a file of the folder of tools,
// made once, and only read. A machine that is saved, and what is cloned of it, keeps the
// one it was started with. Its methods may be called together.
type toolbox struct {
	home  paths.Home
	every []string // names of the programs of every VM
	find  func(name string) (string, error)

	// turn is full while a disk is looked for and made, and what follows is used. Who waits
	// for it can give up.
	turn chan struct{}
	sums map[string]known // digests of programs, by path
}

// known is the digest of a file as it was.
type known struct {
	size    int64
	changed time.Time
	sum     [sha256.Size]byte
}

func newToolbox(o Options) toolbox {
	t := toolbox{home: o.Home, every: o.Tools, find: o.Find, turn: make(chan struct{}, 1), sums: map[string]known{}}
	if t.find == nil {
		t.find = paths.Find
	}
	return t
}

// path returns the file of a set.
func (t *toolbox) path(s toolSet) string { return filepath.Join(t.home.Tools(), string(s)+".erofs") }

// has reports whether the disk of a set is there.
func (t *toolbox) has(s toolSet) bool {
	if s == "" {
		return true
	}
	fi, err := os.Stat(t.path(s))
	return toolSetForm.MatchString(string(s)) && err == nil && fi.Mode().IsRegular()
}

// ensure returns the set of the programs of every VM and those of a kit, as they are on
// this host now, and makes its disk if there is none.
func (t *toolbox) ensure(ctx context.Context, kit []string) (toolSet, error) {
	files, err := t.files(kit)
	if err != nil || len(files) == 0 {
		return "", err
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	all := sha256.New()
	_, _ = fmt.Fprintln(all, toolsForm)
	for _, name := range names {
		sum, err := t.sum(files[name])
		if err != nil {
			return "", fmt.Errorf("read the program %s: %w", name, err)
		}
		_, _ = fmt.Fprintf(all, "%s %x\n", name, sum)
	}
	s := toolSet(hex.EncodeToString(all.Sum(nil)))
	if t.has(s) {
		return s, nil
	}
	if err := t.build(ctx, s, names, files); err != nil {
		return "", rootfs.DiskFull(fmt.Errorf("make the disk of programs: %w", err))
	}
	return s, nil
}

// files returns the paths of programs by their names.
func (t *toolbox) files(kit []string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range t.every {
		path, err := t.find(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = path
	}
	for _, name := range kit {
		path, err := t.find(name)
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "a program of the instance's kit is missing").By(fault.Host).
				WithHint("put %s beside aegisd or on its PATH; see: aegis kit list", name)
		}
		files[name] = path
	}
	return files, nil
}

// sum returns the digest of a file, which is read only if it has changed. The caller holds
// turn.
func (t *toolbox) sum(path string) ([sha256.Size]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	defer func() { _ = f.Close() }() // only read
	fi, err := f.Stat()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if k, ok := t.sums[path]; ok && k.size == fi.Size() && k.changed.Equal(fi.ModTime()) {
		return k.sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return [sha256.Size]byte{}, err
	}
	k := known{size: fi.Size(), changed: fi.ModTime(), sum: [sha256.Size]byte(h.Sum(nil))}
	t.sums[path] = k
	return k.sum, nil
}

// build writes the disk of a set.
func (t *toolbox) build(ctx context.Context, s toolSet, names []string, files map[string]string) error {
	dir := t.home.Tools()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, atomicfile.Prefix+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() { // ends when all is packed, or r is closed
		defer close(packed)
		_ = w.CloseWithError(t.pack(w, names, files)) // never fails; nil is the end
	}()
	b, err := rootfs.NewBuilder(f)
	if err == nil {
		err = b.AddTar(ctx, r)
	}
	_ = r.Close() // never fails
	<-packed
	if err == nil {
		err = b.Finish()
	}
	err = errors.Join(err, f.Chmod(0o400), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return atomicfile.Rename(f.Name(), t.path(s))
}

// pack writes an archive with the programs in bin. The caller holds turn.
func (t *toolbox) pack(w io.Writer, names []string, files map[string]string) error {
	tw := tar.NewWriter(w)
	for _, dir := range []string{"./", "./bin/"} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	for _, name := range names {
		data, err := os.ReadFile(files[name])
		if err == nil && sha256.Sum256(data) != t.sums[files[name]].sum {
			err = fmt.Errorf("the program %s was changed while it was read", files[name])
		}
		if err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "./bin/" + name, Mode: 0o755, Size: int64(len(data)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return tw.Close()
}
