package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

// BaseImage is the name of the image that set-up builds and that machines get
// when nothing else is asked for.
const BaseImage = "base"

// Image describes a root file system image. It is kept as <name>.json beside
// <name>.erofs and written after it, so that an image with a description is whole.
type Image struct {
	Name    string     `json:"name"`
	Digest  string     `json:"digest"` // "sha256:" and the hex digest of the EROFS file
	Created time.Time  `json:"created"`
	Size    size.Bytes `json:"size"`    // of the EROFS file
	Env     []string   `json:"env"`     // the environment its programs start with, PATH at least
	Suite   string     `json:"suite"`   // where it came from, such as "bookworm"
	Recipe  string     `json:"recipe"`  // of the set-up that built it; another recipe is built anew
	Path    string     `json:"-"`       // of the EROFS file
	Include []string   `json:"include"` // the packages asked for
}

// DefaultPath is the PATH of an image that says nothing else.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func imageFile(dir, name string) string       { return filepath.Join(dir, name+".erofs") }
func descriptionFile(dir, name string) string { return filepath.Join(dir, name+".json") }

// LoadImage reads the description of an image of this home. It reads no data: an
// image whose file has another size than described counts as missing.
func LoadImage(home paths.Home, name string) (Image, error) {
	img, err := loadImage(home.Images(), name)
	if err != nil {
		return Image{}, fault.Wrap(fault.NotFound, err, "image %s is not here", name).By(fault.Host).WithHint("run: aegis setup")
	}
	return img, nil
}

func loadImage(dir, name string) (Image, error) {
	data, err := os.ReadFile(descriptionFile(dir, name))
	if err != nil {
		return Image{}, err
	}
	img := Image{}
	if err := json.Unmarshal(data, &img); err != nil {
		return Image{}, fmt.Errorf("read description of image %s: %w", name, err)
	}
	img.Path = imageFile(dir, name)
	fi, err := os.Stat(img.Path)
	if err != nil {
		return Image{}, err
	}
	if size.Bytes(fi.Size()) != img.Size {
		return Image{}, fmt.Errorf("%s has %d bytes instead of %d", img.Path, fi.Size(), img.Size)
	}
	return img, nil
}

// BuildImage makes an image of this home from a tar stream and the fields of img
// that the stream does not tell. The archive counts as whole when it ends with
// io.EOF. The image replaces one of the same name in one step; machines that run on
// the old one keep it.
func BuildImage(ctx context.Context, home paths.Home, img Image, archive io.Reader) (Image, error) {
	f, err := os.CreateTemp(home.Images(), atomicfile.Prefix+img.Name+"-*")
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	defer func() { _ = f.Close() }()           // closed and checked below when all went well
	b, err := NewBuilder(f)
	if err != nil {
		return Image{}, err
	}
	if err := b.AddTar(ctx, archive); err != nil {
		return Image{}, err
	}
	// What stands behind the end mark is not read for its own sake: a reader may
	// know only at its end that the archive is not whole.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return Image{}, err
	}
	if err := b.Finish(); err != nil {
		return Image{}, fmt.Errorf("write %s: %w", f.Name(), err)
	}
	if err := f.Sync(); err != nil {
		return Image{}, err
	}
	if img.Digest, img.Size, err = digestFile(f.Name()); err != nil {
		return Image{}, err
	}
	img.Created = time.Now().UTC().Truncate(time.Second)
	if err := f.Close(); err != nil {
		return Image{}, err
	}
	return install(home.Images(), img, f.Name())
}

// install renames a finished file into place and describes it.
func install(dir string, img Image, file string) (Image, error) {
	img.Path = imageFile(dir, img.Name)
	desc := descriptionFile(dir, img.Name)
	// Without its description the old image is no image: nobody takes the new
	// file for what the old description says.
	if err := os.Remove(desc); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Image{}, err
	}
	if err := os.Chmod(file, 0o400); err != nil {
		return Image{}, err
	}
	if err := os.Rename(file, img.Path); err != nil {
		return Image{}, err
	}
	data, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return Image{}, err
	}
	return img, atomicfile.Write(desc, append(data, '\n'), 0o600)
}

// digestFile returns the digest and size of a file.
func digestFile(path string) (string, size.Bytes, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0, err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), size.Bytes(n), nil
}

// Export puts the image of this home into another folder, Import takes it from
// there. Both link where they can and copy where they cannot. Import believes
// nothing: it compares the digest.
func Export(home paths.Home, name, dir string) error {
	img, err := LoadImage(home, name)
	if err != nil {
		return err
	}
	tmp, err := stage(img.Path, dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }() // gone already when all went well
	_, err = install(dir, img, tmp)
	return err
}

// Import is described at Export. It fails with an error that wraps fs.ErrNotExist
// if dir has no such image of that recipe.
func Import(home paths.Home, name, recipe, dir string) (Image, error) {
	img, err := loadImage(dir, name)
	if err != nil {
		return Image{}, err
	}
	if img.Recipe != recipe {
		return Image{}, fmt.Errorf("image %s is of another recipe: %w", name, fs.ErrNotExist)
	}
	tmp, err := stage(img.Path, home.Images())
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.Remove(tmp) }() // gone already when all went well
	digest, _, err := digestFile(tmp)
	if err != nil {
		return Image{}, err
	}
	if digest != img.Digest {
		return Image{}, fmt.Errorf("%s has digest %s instead of %s", img.Path, digest, img.Digest)
	}
	return install(home.Images(), img, tmp)
}

// stage puts the content of src under a temporary name into dir.
func stage(src, dir string) (string, error) {
	f, err := os.CreateTemp(dir, atomicfile.Prefix+"*")
	if err != nil {
		return "", err
	}
	tmp := f.Name()
	if err := f.Close(); err != nil {
		return "", err
	}
	if err := os.Remove(tmp); err != nil {
		return "", err
	}
	if os.Link(src, tmp) == nil {
		return tmp, nil
	}
	if err := CopySparse(src, tmp); err != nil {
		_ = os.Remove(tmp) // the copy's error tells more
		return "", err
	}
	return tmp, nil
}
