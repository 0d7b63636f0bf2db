package proof

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// homes is how a test could find the home of the user who runs it.
	homes = regexp.MustCompile(`UserHomeDir\(|Getenv\("HOME"\)|user\.Current\(|paths\.Default\(`)
	// addresses are those of servers in tests.
	addresses = regexp.MustCompile(`(?:https?|tcp)://([A-Za-z0-9.-]+\.[A-Za-z]{2,})`)
	// reserved are names under which nobody answers (RFC 2606, RFC 6761); the others are only
	// written about: of origins and links.
	reserved = regexp.MustCompile(`(^|\.)(test|example|invalid|localhost|example\.(com|org|net))$|^(localhost\.)?evil\.com$|^e\.org$`)
)

// TestNobodysHome: no test looks for its user's home, or asks a server of the internet.
func TestNobodysHome(t *testing.T) {
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, filepath.Join(root, "test", "proof")):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if m := homes.Find(b); m != nil {
			t.Errorf("%s finds the user's own home: %s", path, m)
		}
		for _, m := range addresses.FindAllSubmatch(b, -1) {
			if !reserved.Match(m[1]) {
				t.Errorf("%s has an address of the internet: %s", path, m[0])
			}
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Errorf("%d files, %v", files, err)
	}
}
