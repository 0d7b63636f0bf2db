package host

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// cpuFacts are the lines of /proc/cpuinfo that say what a guest sees of a CPU that
// is handed through; the others are about frequency and mitigations.
var cpuFacts = map[string]bool{
	"vendor_id": true, "cpu family": true, "model": true, "stepping": true, "flags": true,
	"CPU implementer": true, "CPU architecture": true, "CPU variant": true, "CPU part": true, "CPU revision": true, "Features": true,
}

// CPU names the model of the host's CPU: the same name, the same instructions.
func CPU() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	return cpuName(b)
}

func cpuName(cpuinfo []byte) string {
	sum := sha256.New()
	lines := bufio.NewScanner(bytes.NewReader(cpuinfo))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() && lines.Text() != "" { // the first of them
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && cpuFacts[strings.TrimSpace(key)] {
			_, _ = sum.Write([]byte(key + value + "\n")) // never fails
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
