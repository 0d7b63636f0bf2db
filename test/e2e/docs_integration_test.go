//go:build integration

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xfeldman/aegisvm/test/docs"
)

// TestDocs runs what the pages and the examples show as "vm", in their order, each in its
// own shell and folder. They share a daemon; what a page has made goes before the next.
func TestDocs(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := docs.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	ports := docs.FreePorts(t)
	h := newHost(t, ports.Router())
	user := t.TempDir()
	if err := os.Symlink(h.home, filepath.Join(user, ".aegis")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "HOME="+user, "AEGIS_HOME="+h.home, "PATH="+h.bin+":"+os.Getenv("PATH"))
	ran := 0
	for _, page := range pages {
		if !slices.ContainsFunc(page.Blocks, func(b docs.Block) bool { return b.How == "vm" }) {
			continue
		}
		t.Run(page.Path, func(t *testing.T) {
			s := docs.NewShell(t, root, page, ports, env)
			defer h.empty()
			for _, b := range page.Blocks {
				s.Prepare(b)
				if b.How == "vm" {
					s.Run(b, true)
				}
			}
			ran += s.Commands()
		})
	}
	t.Logf("%d commands", ran)
}

// empty deletes what is in the home that a reader made.
func (h *host) empty() {
	h.t.Helper()
	h.ok("up") // a page may have ended it
	for _, kind := range []string{"instance", "snapshot"} {
		var list []struct{ ID string }
		if err := json.Unmarshal([]byte(h.ok(kind, "list", "--json")), &list); err != nil {
			h.t.Fatal(err)
		}
		for _, item := range list {
			if r := h.try(kind, "delete", item.ID); r.status != 0 && r.status != 1 { // a child goes with its parent
				h.t.Errorf("%s delete %s: %s", kind, item.ID, r.stderr)
			}
		}
	}
	var secrets []struct{ Name string }
	if err := json.Unmarshal([]byte(h.ok("secret", "list", "--json")), &secrets); err != nil {
		h.t.Fatal(err)
	}
	for _, s := range secrets {
		h.ok("secret", "delete", s.Name)
	}
}
