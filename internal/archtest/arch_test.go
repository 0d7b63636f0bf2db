package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// list runs go list over the module, with more arguments before the pattern.
func list(t *testing.T, args ...string) []Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"list", "-deps=false", "-json=ImportPath,Doc,Imports,Deps"}, args...), "./...")...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestArrows(t *testing.T) {
	for _, v := range violations(list(t)) {
		t.Error(v)
	}
}

// TestPlantedArrow shows that a wrong arrow is noticed: it plants one in an overlay
// of the real tree.
func TestPlantedArrow(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "planted.go")
	abs, err := filepath.Abs(filepath.Join(root, "internal", "frame", "planted.go"))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {abs: src}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src, []byte("package frame\n\nimport _ \"net/http\"\n\nimport _ \""+module+"client\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(violations(list(t, "-e", "-overlay", file)), "\n")
	for _, want := range []string{
		"internal/frame must not import client",
		"cmd/aegis-harness must not depend on net/http: PID 1 stays small",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("violations do not tell %q:\n%s", want, got)
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	for _, p := range list(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// TestFileSizes refuses files over 600 lines, and mains over 40.
func TestFileSizes(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && path != root {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		limit := 600
		switch {
		case strings.Contains(path, "vmmtest"):
			limit = 1500
		case d.Name() == "main.go" && strings.Contains(path, "/cmd/"):
			limit = 40
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := bytes.Count(src, []byte("\n")); n > limit {
			t.Errorf("%s has %d lines, at most %d", path, n, limit)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// maxHarness is the size PID 1 may have: it is read into every VM's memory.
const maxHarness = 6 << 20

func TestHarnessSize(t *testing.T) {
	out := filepath.Join(t.TempDir(), "aegis-harness")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd/aegis-harness")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, msg)
	}
	fi, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > maxHarness {
		t.Errorf("aegis-harness has %d bytes, at most %d", fi.Size(), maxHarness)
	}
	t.Logf("aegis-harness: %d KB", fi.Size()>>10)
}
