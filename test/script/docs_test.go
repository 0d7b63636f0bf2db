package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/test/docs"
)

// TestDocs runs what pages show as "fake" on machines that are goroutines, and has the CLI
// parse what they show as "check". What is marked otherwise is tested elsewhere, see
// package docs.
func TestDocs(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := docs.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	shims := shimsFor(t, root)
	for _, page := range pages {
		t.Run(page.Path, func(t *testing.T) {
			t.Parallel()
			runFake(t, root, page)
			parse(t, root, page, shims)
		})
	}
}

// runFake runs the blocks of a page that need no real VM.
func runFake(t *testing.T, root string, page docs.Page) {
	t.Helper()
	if !shows(page, "fake") {
		return
	}
	user := t.TempDir()
	env := append(os.Environ(), "HOME="+user, "AEGIS_HOME="+filepath.Join(user, ".aegis"))
	s := docs.NewShell(t, root, page, docs.FreePorts(t), env)
	t.Cleanup(func() {
		down := exec.Command("aegis", "down") // the test's context has ended
		down.Env = env
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("aegis down: %v\n%s", err, out)
		}
	})
	for _, b := range page.Blocks {
		s.Prepare(b)
		if b.How == "fake" {
			s.Run(b, true)
		}
	}
}

// parse has the CLI parse the commands of a page that nothing else runs.
func parse(t *testing.T, root string, page docs.Page, shims string) {
	t.Helper()
	if !shows(page, "check") && len(page.Spans) == 0 {
		return
	}
	user := t.TempDir()
	s := docs.NewShell(t, root, page, docs.FreePorts(t), append(os.Environ(), "HOME="+user, "AEGIS_HOME="+filepath.Join(user, ".aegis"), "PATH="+shims+":"+os.Getenv("PATH")))
	for _, b := range page.Blocks {
		s.Prepare(b)
		if b.How == "check" {
			s.Run(b, false)
		}
	}
	s.Run(docs.Block{Commands: page.Spans}, false)
}

func shows(page docs.Page, how string) bool {
	for _, b := range page.Blocks {
		if b.How == how {
			return true
		}
	}
	return false
}

// stubs are programs that pages call where AegisVM's own are only parsed, and that would
// change this host, or ask others. make says what it would do.
var stubs = []string{"sudo", "apt-get", "brew", "curl", "docker", "claude", "systemctl", "journalctl", "launchctl", "loginctl", "rpm", "dnf", "jq", "pass", "openssl", "sha256sum", "dpkg", "zypper"}

// shimsFor makes a folder in which aegis parses, and nothing else does anything.
func shimsFor(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("aegis", `exec aegis-check "$@"`)
	for _, name := range stubs {
		write(name, "exit 0")
	}
	write("git", `if [ "$1" = clone ]; then mkdir -p "$(basename "$2")"; fi`)
	if real, err := exec.LookPath("make"); err == nil {
		write("make", fmt.Sprintf(`exec %q -n -C %q "$@" >/dev/null`, real, root))
	}
	return dir
}

// TestReferenceExamples has the CLI parse the examples of the reference, which are those
// of the help.
func TestReferenceExamples(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "reference", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := docs.Parse("docs/reference/cli.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	user := t.TempDir()
	if err := os.MkdirAll(filepath.Join(user, ".config/fish/completions"), 0o700); err != nil { // of one who has fish
		t.Fatal(err)
	}
	s := docs.NewShell(t, root, page, docs.FreePorts(t), append(os.Environ(), "HOME="+user, "AEGIS_HOME="+user, "PATH="+shimsFor(t, root)+":"+os.Getenv("PATH")))
	for _, name := range []string{".env", "key.txt", "key.pem", "questions.txt"} { // a user's
		s.Prepare(docs.Block{Attr: map[string]string{"file": name}})
	}
	for _, b := range page.Blocks {
		if b.Lang != "sh" {
			continue
		}
		for line := range strings.Lines(b.Text) {
			b.Commands = append(b.Commands, docs.Command{Where: b.Where, Text: strings.TrimSpace(line)})
		}
		s.Run(b, false)
	}
	if s.Commands() < 100 {
		t.Errorf("only %d examples", s.Commands())
	}
}
