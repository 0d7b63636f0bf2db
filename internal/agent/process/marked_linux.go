package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// marked returns the living processes that have a mark. Their environments are those
// that they were started with: a program cannot lose the mark but by starting another
// with none.
func marked(mark string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil { // it has ended, or is somebody else's
			continue
		}
		if has(env, mark) {
			out = append(out, pid)
		}
	}
	return out
}

func has(env []byte, mark string) bool {
	for v := range bytes.SplitSeq(env, []byte{0}) {
		value, ok := bytes.CutPrefix(v, []byte(markName+"="))
		if !ok {
			continue
		}
		rest, ok := bytes.CutPrefix(value, []byte(mark))
		return ok && (len(rest) == 0 || rest[0] == '/')
	}
	return false
}
