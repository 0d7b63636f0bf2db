package worker

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// oomScore makes the kernel end a VM before the daemon or the user's session.
const oomScore = "500"

func confineMore() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(oomScore), 0) // a second line of defence
}

// loaded returns the file of a library that has been loaded.
func loaded(name string) string {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	stem, _, _ := strings.Cut(filepath.Base(name), ".")
	for lines := bufio.NewScanner(f); lines.Scan(); {
		_, path, ok := strings.Cut(lines.Text(), "/")
		if ok && strings.HasPrefix(filepath.Base(path), stem+".") {
			return "/" + path
		}
	}
	return ""
}
