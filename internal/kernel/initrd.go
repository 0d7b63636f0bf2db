package kernel

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

const (
	initrdPrefix = "initrd-"
	// initrdForm changes whenever the content of the initramfs does for the same
	// harness and kernel.
	initrdForm = "1"
	// initrdsKept is how many a home keeps: another harness makes another one.
	initrdsKept = 3
)

// EnsureInitrd returns the path of the initramfs with the harness at harnessPath
// for the kernel of this home. It makes one unless it is there already.
func EnsureInitrd(ctx context.Context, home paths.Home, harnessPath string) (string, error) {
	k, err := Installed(home)
	if err != nil {
		return "", err
	}
	return k.EnsureInitrd(ctx, home.Kernel(), harnessPath)
}

// EnsureInitrd returns the path of the initramfs in dir with the harness at harnessPath for
// this kernel. It makes one unless it is there already.
func (k Kernel) EnsureInitrd(ctx context.Context, dir, harnessPath string) (string, error) {
	harness, err := os.ReadFile(harnessPath)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "read the guest's harness").By(fault.Host).WithHint("install or build AegisVM again")
	}
	sum := sha256.New()
	_, _ = fmt.Fprintf(sum, "%s\n%s\n%s\n", initrdForm, k.Digest, k.Extra) // never fails
	_, _ = sum.Write(harness)                                              // never fails
	path := filepath.Join(dir, initrdPrefix+hex.EncodeToString(sum.Sum(nil)[:12])+".img")
	if _, err := os.Stat(path); err == nil {
		now := time.Now()
		return path, os.Chtimes(path, now, now) // what is in use is not removed
	}
	if err := writeInitrd(ctx, path, k, harness); err != nil {
		return "", fmt.Errorf("make initramfs: %w", err)
	}
	return path, removeOldInitrds(dir)
}

func writeInitrd(ctx context.Context, path string, k Kernel, harness []byte) error {
	c, err := readCatalog(k.Modules)
	if err != nil {
		return err
	}
	sets, err := c.resolve(withExtra(strings.Fields(k.Extra)))
	if err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), atomicfile.Prefix+"initrd-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	w := bufio.NewWriterSize(f, 1<<20)
	if err := errors.Join(archive(w, sets, harness), w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// archive writes the initramfs.
func archive(w *bufio.Writer, sets map[string][]loadable, harness []byte) error {
	c := &cpioWriter{w: w}
	for _, dir := range []string{"dev", "proc", "sys", "modules"} {
		c.dir(dir)
	}
	c.char("dev/console", 0o600, 5, 1)
	c.char("dev/null", 0o666, 1, 3)
	c.file("init", 0o755, harness)
	for _, set := range moduleSets {
		c.dir("modules/" + set.name)
		for i, m := range sets[set.name] {
			c.file(fmt.Sprintf("modules/%s/%02d-%s.ko", set.name, i, m.name), 0o644, m.data)
		}
	}
	return c.close()
}

// removeOldInitrds keeps the ones that were used last.
func removeOldInitrds(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type file struct {
		path string
		used time.Time
	}
	var files []file
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), initrdPrefix) {
			continue
		}
		if fi, err := e.Info(); err == nil { // else another process removed it
			files = append(files, file{filepath.Join(dir, e.Name()), fi.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return b.used.Compare(a.used) })
	var errs []error
	for _, f := range files[min(initrdsKept, len(files)):] {
		errs = append(errs, os.Remove(f.path))
	}
	return errors.Join(errs...)
}
