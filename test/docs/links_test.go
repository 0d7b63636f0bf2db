package docs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// TestLinks follows every relative link of every Markdown file, anchors included.
func TestLinks(t *testing.T) {
	files := markdown(t)
	if len(files) < 30 {
		t.Fatalf("only %d files", len(files))
	}
	for path, d := range files {
		for _, link := range d.links {
			if err := follow(files, path, link); err != nil {
				t.Errorf("%s: %s: %v", path, link, err)
			}
		}
	}
}

// TestLinksAreNoticed shows that a dead one is.
func TestLinksAreNoticed(t *testing.T) {
	files := map[string]document{"a.md": read([]byte("# A `b`, c\n\n## Twice\n\n## Twice\n")), "docs/b.md": read([]byte("x"))}
	for link, good := range map[string]bool{
		"../a.md": true, "../a.md#a-b-c": true, "../a.md#twice-1": true, "b.md": true, "https://example.org/x": true,
		"a.md": false, "../a.md#b": false, "#x": false, "../../../../../etc": false, "/a.md": false,
	} {
		if err := follow(files, "docs/b.md", link); (err == nil) != good {
			t.Errorf("%s: %v", link, err)
		}
	}
}

// document is a Markdown file: where it links to, and what may be linked to.
type document struct {
	links   []string
	anchors map[string]bool
}

// markdown reads all Markdown files of the repository, by path.
func markdown(t *testing.T) map[string]document {
	t.Helper()
	files := map[string]document{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		files[filepath.ToSlash(rel)] = read(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func read(source []byte) document {
	d := document{anchors: map[string]bool{}}
	tree := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(tree, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // the walker never fails
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Link:
			d.links = append(d.links, string(n.Destination))
		case *ast.Image:
			d.links = append(d.links, string(n.Destination))
		case *ast.Heading:
			slug := anchor(plain(n, source))
			for i := 1; d.anchors[slug]; i++ {
				slug = fmt.Sprintf("%s-%d", anchor(plain(n, source)), i)
			}
			d.anchors[slug] = true
		}
		return ast.WalkContinue, nil
	})
	return d
}

// plain is the text of a node.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.Write(t.Value(source))
		} else {
			b.WriteString(plain(c, source))
		}
	}
	return b.String()
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func follow(files map[string]document, from, link string) error {
	u, err := url.Parse(link)
	switch {
	case err != nil:
		return err
	case u.Scheme != "":
		return nil // of somebody else
	case strings.HasPrefix(u.Path, "/"):
		return errors.New("not relative")
	}
	to := from
	if u.Path != "" {
		to = filepath.ToSlash(filepath.Join(filepath.Dir(from), u.Path))
	}
	if !filepath.IsLocal(to) {
		return errors.New("leads out of the repository")
	}
	d, ok := files[to]
	if !ok {
		if _, err := os.Stat(filepath.Join(root, to)); err != nil {
			return err
		}
	}
	if u.Fragment != "" && !d.anchors[u.Fragment] {
		return fmt.Errorf("no heading %q", u.Fragment)
	}
	return nil
}
