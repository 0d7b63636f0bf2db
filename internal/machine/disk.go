package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/size"
	"github.com/xfeldman/aegisvm/internal/vmm"
	"github.com/xfeldman/aegisvm/internal/vmm/ram"
)

// diskImageName is the file of what a template's disk holds.
const diskImageName = "disk.image"

// layout is an instance's folder.
type layout struct {
	dir, disk string
	device    vmm.Disk // the disk, as a machine is given it
	made      bool     // the folder, just now
	fresh     bool     // there is no disk yet
}

// layOut makes what is missing of an instance's folder, but for its disk.
func (g *Ground) layOut(id instance.ID) (*layout, error) {
	dir, err := g.folder(id)
	if err != nil {
		return nil, err
	}
	if err := g.checkFree(); err != nil {
		return nil, err
	}
	d, err := loadDisk(dir)
	if err == nil {
		err = g.ensureTop(dir, d)
	}
	if err != nil {
		return nil, err
	}
	l := &layout{dir: dir, disk: filepath.Join(dir, d.Top), device: g.device(dir, d)}
	if _, err := os.Stat(l.disk); err != nil {
		l.fresh = true
	}
	for _, d := range []string{dir, g.Dir(id)} {
		err := os.Mkdir(d, 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			l.undo()
			return nil, rootfs.DiskFull(err)
		}
		l.made = l.made || err == nil && d == dir
	}
	return l, nil
}

// checkFree refuses to start a machine on a disk that is all but full.
func (g *Ground) checkFree() error {
	free, err := g.free(g.home.Instances())
	if err != nil {
		return fmt.Errorf("measure free space: %w", err)
	}
	if free < MinFree {
		return fault.New(fault.Exhausted, "only %v are free on the disk of %s", free, g.home.Data()).By(fault.Host).
			WithHint("free some space: a machine needs %v to start", MinFree)
	}
	return nil
}

// undo removes what was made. The error that is the reason tells more than one of this;
// Leftovers lists a folder that stays.
func (l *layout) undo() {
	if l.made {
		_ = os.RemoveAll(l.dir)
	}
}

// makeDisk makes the disk, which is not there. It has another name until it is whole: a
// disk that exists is never made again.
func (l *layout) makeDisk(fill func(part string) error) error {
	part := l.disk + ".part"
	if err := os.RemoveAll(part); err != nil { // of a daemon that was killed here
		return err
	}
	err := fill(part)
	if err == nil {
		err = os.Rename(part, l.disk)
	}
	if err != nil {
		_ = os.Remove(part) // the first error tells more
	}
	return err
}

// storeDisk writes what a disk holds to a file at path, with checksums.
func storeDisk(ctx context.Context, disk, path string) (vmm.File, error) {
	f, err := os.Open(disk)
	if err != nil {
		return vmm.File{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	stored, err := ram.Store(ctx, f, path)
	return stored, rootfs.DiskFull(err)
}

// copyDisk makes the disk of a clone at path, which does not exist: it holds what the
// template's did. It fails with an error that wraps vmm.ErrDamaged where that was
// changed.
func (t *template) copyDisk(ctx context.Context, path string, want size.Bytes) error {
	image, err := ram.Open(t.disk)
	if err != nil {
		return err
	}
	defer image.Close() //nolint:errcheck // only read
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return rootfs.DiskFull(err)
	}
	err = f.Truncate(int64(max(want, image.Size())))
	if err == nil {
		err = image.Load(ctx, f)
	}
	return rootfs.DiskFull(errors.Join(err, f.Close()))
}

// makeTemplateDisk makes the disk of a template: a new one, or one that nobody looks at.
func (g *Ground) makeTemplateDisk(path string, rooted bool) error {
	if rooted {
		return rootfs.CreateDisk(g.home, path, rootfs.TemplateSize)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(int64(rootfs.TemplateSize)), f.Close())
}
