package vmrig

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Checksums is what `find . -type f | sort | xargs sha256sum` says in a folder of the host.
func Checksums(tb testing.TB, dir string) string {
	tb.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		tb.Fatal(err)
	}
	defer root.Close()                     //nolint:errcheck // only read
	sums := map[string][sha256.Size]byte{} // by path
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := fs.ReadFile(root.FS(), path)
		sums["./"+path] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	var out strings.Builder
	for _, path := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&out, "%x  %s\n", sums[path], path)
	}
	return out.String()
}
