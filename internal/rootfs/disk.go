package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

// TemplateSize is the size of the disk that every instance disk is copied from;
// no disk is smaller.
const TemplateSize = 8 * size.GiB

// templateName changes whenever mkfsArgs do: old templates are not used then.
const templateName = "disk-v2.ext4"

// TemplatePath is where this home keeps the formatted disk.
func TemplatePath(home paths.Home) string { return filepath.Join(home.Images(), templateName) }

// mkfsArgs formats a sparse file without writing to most of it. A regular file
// reads as zeros where it was never written, so the inode tables count as
// initialised, and the guest's kernel does not fill them in the background. The
// journal is small because it is what a fresh disk occupies on the host; with half of it
// the guest's kernel refuses to grow the file system (EXT4_IOC_RESIZE_FS wants more
// credits than fit). The file
// system has room in its tables to grow to a thousand times its size. All features
// are named, so that the host's preferences and a newer mke2fs change nothing.
var mkfsArgs = []string{
	"-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-L", "aegis-disk",
	"-J", "size=32", "-E", "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0",
	"-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super," +
		"large_file,huge_file,dir_nlink,extra_isize,metadata_csum",
}

// EnsureTemplate formats the disk template of this home if it is not there.
func EnsureTemplate(ctx context.Context, home paths.Home) error {
	path := TemplatePath(home)
	if fi, err := os.Stat(path); err == nil && fi.Size() == int64(TemplateSize) {
		return nil
	}
	mkfs, err := LookProgram("mke2fs")
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot format a disk").By(fault.Host).WithHint("install e2fsprogs")
	}
	f, err := os.CreateTemp(home.Images(), atomicfile.Prefix+"disk-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	if err := errors.Join(f.Truncate(int64(TemplateSize)), f.Close()); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mkfs, append(mkfsArgs, f.Name())...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fault.Wrap(fault.Internal, err, "mke2fs: %s", strings.TrimSpace(string(out))).By(fault.Host)
	}
	return os.Rename(f.Name(), path)
}

// CreateDisk makes an instance disk at path, which does not exist: a sparse copy
// of this home's template, made longer if want is more. It is not synced. After an
// error there is nothing at path.
func CreateDisk(home paths.Home, path string, want size.Bytes) error {
	err := CopySparse(TemplatePath(home), path)
	if errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.Unavailable, err, "the disk template is missing").By(fault.Host).WithHint("run: aegis setup")
	}
	if err == nil && want > TemplateSize {
		if err = os.Truncate(path, int64(want)); err != nil {
			_ = os.Remove(path) // the first error tells more
		}
	}
	return DiskFull(err)
}

// DiskFull turns an error that means a full disk into what a person should read.
// Other errors, and nil, come back as they are.
func DiskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(fault.Exhausted, err, "the disk is full").By(fault.Host).
			WithHint("free some space, or move everything with AEGIS_HOME; see: aegis doctor")
	}
	return err
}

// LookProgram finds a program of the host. The folders of administrators' programs
// are searched too: they are not on every user's PATH, but nothing in them that
// AegisVM uses needs more rights than the user has.
func LookProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
