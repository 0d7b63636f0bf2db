package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const root = "../.."

// TestBlocks wants every block of every page tested in one of the ways of the package's
// comment.
func TestBlocks(t *testing.T) {
	pages, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 15 {
		t.Fatalf("only %d pages", len(pages))
	}
	tests := testSources(t)
	for _, page := range pages {
		for _, b := range page.Blocks {
			if err := check(page, b, tests); err != nil {
				t.Errorf("%s: %v", b.Where, err)
			}
		}
	}
}

// check says how a block is not tested.
func check(page Page, b Block, tests map[string]string) error {
	if name := b.Attr["tested"]; name != "" {
		if b.How != "" {
			return fmt.Errorf("tested by %s, and run too", name)
		}
		source, ok := tests[name]
		if !ok {
			return fmt.Errorf("there is no test %s", name)
		}
		if base := filepath.Base(page.Path); !strings.Contains(source, base) {
			return fmt.Errorf("the package of %s does not read %s", name, base)
		}
		return nil
	}
	for key := range b.Attr {
		if !slices.Contains([]string{"file", "because"}, key) {
			return fmt.Errorf("%s=: what is that", key)
		}
	}
	if b.Lang != "console" && b.How != "" {
		return fmt.Errorf("only a console can be %s", b.How)
	}
	switch b.Lang {
	case "console":
		return checkConsole(b)
	case "json":
		if !json.Valid([]byte(b.Text)) {
			return errors.New("this is no JSON")
		}
	case "toml":
		var v map[string]any
		return toml.Unmarshal([]byte(b.Text), &v)
	case "text", "mermaid":
		for line := range strings.Lines(b.Text) {
			if strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "aegis ") || strings.HasPrefix(line, "bin/aegis ") {
				return fmt.Errorf("a command in a block that is not run: %s", strings.TrimSpace(line))
			}
		}
	default:
		if b.Attr["file"] == "" {
			return errors.New("nobody says how this is tested; see the comment of package test/docs")
		}
	}
	return nil
}

func checkConsole(b Block) error {
	switch {
	case len(b.Commands) == 0:
		return errors.New("no command; commands begin with $")
	case !slices.Contains([]string{"vm", "fake", "check"}, b.How):
		return fmt.Errorf("a console is vm, fake or check, not %q; see the comment of package test/docs", b.How)
	case (b.How == "check") != (b.Attr["because"] != ""):
		return errors.New("what is only checked says why, in because=, and nothing else does")
	}
	return nil
}

// testSources returns the sources of each test's package, by the test's name.
func testSources(t *testing.T) map[string]string {
	t.Helper()
	packages, folders := map[string]string{}, map[string]string{} // sources by folder, folders by test
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range name.FindAllSubmatch(b, -1) {
			folders[string(m[1])] = filepath.Dir(path)
		}
		packages[filepath.Dir(path)] += string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for name, folder := range folders {
		found[name] = packages[folder]
	}
	return found
}

func TestParse(t *testing.T) {
	page, err := Parse("p.md", "text\n```console check because=\"no network\"\n$ one \\\n> two\nout\n$ three\n  hint: x\n```\n\n   ```json file=a.json\n   {}\n   ```\n")
	if err != nil || len(page.Blocks) != 2 {
		t.Fatalf("%+v, %v", page, err)
	}
	b := page.Blocks[0]
	if b.Where != "p.md:2" || b.Lang != "console" || b.How != "check" || b.Attr["because"] != "no network" || len(b.Commands) != 2 {
		t.Errorf("%+v", b)
	}
	if c := b.Commands[0]; c.Text != "one \\\ntwo" || len(c.Output) != 1 || c.Fails() || c.Where != "p.md:3" {
		t.Errorf("%+v", c)
	}
	if c := b.Commands[1]; !c.Fails() {
		t.Errorf("%+v", c)
	}
	spans, err := Parse("p.md", "`aegis logs X`, `aegis cp`, `aegis help COMMAND`, `curl x`\n```text\n`aegis no`\n```\n")
	if err != nil || len(spans.Spans) != 2 || spans.Spans[0].Text != "aegis logs X" || spans.Spans[1].Text != "aegis help cp" {
		t.Errorf("%+v, %v", spans.Spans, err)
	}
	if b := page.Blocks[1]; b.Attr["file"] != "a.json" || b.Text != "{}\n" {
		t.Errorf("%+v", b)
	}
	for _, bad := range []string{"```console vm\nout\n```\n", "```console vm fake\n$ x\n```\n", "```text\n"} {
		if _, err := Parse("p.md", bad); err == nil {
			t.Errorf("%q is a page", bad)
		}
	}
}

// TestCheck shows that a block which is not tested is noticed.
func TestCheck(t *testing.T) {
	tests := map[string]string{"TestX": `"docs", "p.md"`}
	for info, good := range map[string]bool{
		"console vm": true, "console fake": true, `console check because="it is late"`: true, "console tested=TestX": true, "sh tested=TestX": true, "sh file=run": true,
		"console": false, "": false, "sh": false, "console check": false, `console vm because="x"`: false, "sh vm": false, "console tested=TestY": false, "json": false, "toml": false, "text": false, "console vm tested=TestX": false, "text x=y": false,
	} {
		page, err := Parse("docs/p.md", "```"+info+"\n$ aegis x\n```\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := check(page, page.Blocks[0], tests); (err == nil) != good {
			t.Errorf("%q: %v", info, err)
		}
	}
	page, err := Parse("docs/q.md", "```sh tested=TestX\nx\n```\n")
	if err != nil || check(page, page.Blocks[0], tests) == nil {
		t.Errorf("a test that does not read the page: %v", err)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		shown, output string
		want          bool
	}{
		{"a\nb", "a\nb\n", true},
		{"a\nb", "a\n", false},
		{"a", "a\nb", false},
		{"a b", "a    b  \n\n", true},
		{"inst-... running", "inst-0123  running\n", true},
		{"inst-...", "inst-1\ninst-2\n", false},
		{"...\nlast", "1\n2\nlast\n", true},
		{"...\nlast", "last\n", true},
		{"first\n...", "first\n2\n3\n", true},
		{"...", "", true},
		{"a.c", "abc", false},
		{"", "x", false},
	} {
		if got := Match(strings.Split(c.shown, "\n"), c.output); got != c.want {
			t.Errorf("%q shown, %q printed: %v", c.shown, c.output, got)
		}
	}
}

// TestMessages holds the messages in the first column of TROUBLESHOOTING against those of
// the product: each piece between dots is in its sources.
func TestMessages(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "TROUBLESHOOTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := productSources(t)
	messages := 0
	for line := range strings.Lines(string(page)) {
		first, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if !ok || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			messages++
			for piece := range strings.SplitSeq(m[1], "...") {
				if piece = strings.TrimSpace(strings.Trim(piece, ": ")); !strings.Contains(sources, piece) {
					t.Errorf("nothing says %q, of %q", piece, m[1])
				}
			}
		}
	}
	if messages < 40 {
		t.Errorf("only %d messages", messages)
	}
}

// productSources returns all sources of the product, and what its programs say in tests
// of faults, where they pass on what others say.
func productSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"internal", "client", "cmd", "test/e2e/testdata/faults"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			if ext := filepath.Ext(path); ext == ".go" || ext == ".golden" {
				b, err := os.ReadFile(path)
				all.Write(b)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// TestIndex wants every page in the index.
func TestIndex(t *testing.T) {
	index := markdown(t)["docs/README.md"]
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if name := filepath.Base(p); name != "README.md" && !slices.Contains(index.links, name) {
			t.Errorf("docs/README.md has no link to %s", name)
		}
	}
}
