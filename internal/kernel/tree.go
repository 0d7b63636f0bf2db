package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/paths"
)

func newReaderAt(b []byte) io.ReaderAt { return bytes.NewReader(b) }

// hasNote looks for an ELF note of that owner and type.
func hasNote(notes []byte, owner string, kind uint32) bool {
	le := binary.LittleEndian
	for len(notes) >= 12 {
		nameSize, descSize, noteKind := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		end := 12 + (nameSize+3)&^3 + (descSize+3)&^3
		if end > uint64(len(notes)) {
			return false
		}
		if noteKind == kind && string(notes[12:12+nameSize]) == owner {
			return true
		}
		notes = notes[end:]
	}
	return false
}

// digestTree returns a digest over the names and contents of all files below dir.
func digestTree(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path) //nolint:gosec // below dir
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // only read
		one := sha256.New()
		if _, err := io.Copy(one, f); err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s  %s\n", hex.EncodeToString(one.Sum(nil)), filepath.ToSlash(name))
		return err
	})
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), err
}

// linkTree gives dst, which exists, the files of src: as links where the file
// system can, else as copies. Nobody writes into such a file.
func linkTree(src, dst string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, name)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case !d.Type().IsRegular():
			return nil // modules' trees have links to sources, which no machine needs
		case os.Link(path, to) == nil: //nolint:gosec // both trees are this user's own
			return nil
		default:
			return copyFile(path, to)
		}
	})
}

func copyFile(src, dst string) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return err
	}
	return os.WriteFile(dst, data, 0o400) //nolint:gosec // below a folder of the caller's
}

// copyClosure copies the modules that machines load from one folder of modules
// to another, extra ones included.
func copyClosure(src, dst string, extra []string) error {
	c, err := readCatalog(src)
	if err != nil {
		return err
	}
	sets, err := c.resolve(withExtra(extra))
	if err != nil {
		return err
	}
	for _, mods := range sets {
		for _, m := range mods {
			name, err := filepath.Rel(src, c.files[m.name])
			if err != nil {
				return err
			}
			if err := copyFile(c.files[m.name], filepath.Join(dst, name)); err != nil {
				return err
			}
		}
	}
	return copyFile(filepath.Join(src, "modules.builtin"), filepath.Join(dst, "modules.builtin"))
}

// put keeps a kernel in the folder dir for other homes.
func put(k Kernel, dir string) error {
	if old, err := read(dir, k.Arch); err == nil && old.Digest == k.Digest {
		return nil
	}
	return transfer(filepath.Dir(k.Image), dir, k)
}

// take makes the kernel kept in the folder from the kernel of the folder to. It
// compares the digest.
func take(from, to, arch string) (Kernel, error) {
	k, err := read(from, arch)
	if err != nil {
		return Kernel{}, err
	}
	if err := transfer(filepath.Dir(k.Image), to, k); err != nil {
		return Kernel{}, err
	}
	return read(to, arch)
}

// transfer installs the files of src in the folder dir as the kernel k.
func transfer(src, dir string, k Kernel) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	staged, err := os.MkdirTemp(dir, atomicfile.Prefix+"kernel-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(staged) }() // gone already when all went well
	if err := linkTree(src, staged); err != nil {
		return err
	}
	digest, err := digestTree(staged)
	if err != nil {
		return err
	}
	if digest != k.Digest {
		return fmt.Errorf("%s has digest %s instead of %s", src, digest, k.Digest)
	}
	_, err = install(dir, staged, k)
	return err
}

// CopySlim gives the home to, which has none, the kernel of the home from, with only those
// modules that machines load: an archive's kernel has a hundred times as many.
func CopySlim(from, to paths.Home) (Kernel, error) {
	k, err := Installed(from)
	if err != nil {
		return Kernel{}, err
	}
	if err := os.MkdirAll(to.Kernel(), 0o700); err != nil {
		return Kernel{}, err
	}
	staged, err := os.MkdirTemp(to.Kernel(), atomicfile.Prefix+"kernel-*")
	if err != nil {
		return Kernel{}, err
	}
	defer func() { _ = os.RemoveAll(staged) }() // gone already when all went well
	err = errors.Join(
		copyFile(k.Image, filepath.Join(staged, imageName)),
		// VMMs of another user read it, as writeImage has it.
		os.Chmod(filepath.Join(staged, imageName), 0o444), //nolint:gosec // the home is private
		copyClosure(k.Modules, filepath.Join(staged, modulesName), strings.Fields(k.Extra)),
	)
	if err != nil {
		return Kernel{}, err
	}
	return install(to.Kernel(), staged, k)
}
