package paths

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asInstalled, in the environment, makes this program tell where it finds things.
const asInstalled = "AEGIS_TEST_AS_INSTALLED"

func TestMain(m *testing.M) {
	if os.Getenv(asInstalled) == "" {
		os.Exit(m.Run())
	}
	harness, err := Program("aegis-harness")
	fmt.Println("harness", harness, err)
	gateway, err := Find("aegis-gateway")
	fmt.Println("gateway", gateway, err)
	for _, dir := range Home("/home").KitDirs() {
		fmt.Println("kits", filepath.Clean(dir))
	}
}

// TestInstalled installs this program as a package does, and lets it look around: below the
// root it is in, under the name that it has in the folder of another one.
func TestInstalled(t *testing.T) {
	prefix := t.TempDir()
	prefix, err := filepath.EvalSymlinks(prefix)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(prefix, "lib", "aegisvm")
	for path, content := range map[string][]byte{
		filepath.Join(prefix, "bin", "aegisd"): self,
		filepath.Join(lib, "aegis-harness"):    nil,
		filepath.Join(lib, "aegis-gateway"):    nil,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "aegisd")
	if err := os.Symlink(filepath.Join(prefix, "bin", "aegisd"), link); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{filepath.Join(prefix, "bin", "aegisd"), link} {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), asInstalled+"=1", "PATH=/nowhere")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		says := strings.Split(string(out), "\n")
		for _, want := range []string{
			"harness " + filepath.Join(lib, "aegis-harness") + " <nil>",
			"gateway " + filepath.Join(lib, "aegis-gateway") + " <nil>",
			"kits " + filepath.Join(prefix, "share", "aegisvm", "kits"),
			"kits /usr/share/aegisvm/kits",
			"kits /opt/homebrew/share/aegisvm/kits",
		} {
			if !slices.Contains(says, want) {
				t.Errorf("%s does not say %q:\n%s", program, want, out)
			}
		}
	}
}
