package machine

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// Forget removes the templates of an image that is about to be removed. One that
// somebody is being cloned from stays, and goes by the quota.
func (g *Ground) Forget(image string) {
	entries, err := os.ReadDir(g.templates())
	if err != nil {
		return // there are none
	}
	for _, e := range entries {
		dir := filepath.Join(g.templates(), e.Name())
		data, err := os.ReadFile(filepath.Join(dir, manifestName))
		if err != nil {
			continue // being made
		}
		var m templateManifest
		if json.Unmarshal(data, &m) != nil || m.Key.Image != image || !g.cache.expel(e.Name()) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			g.log.Error("remove template", logattr.Template(e.Name()), logattr.Err(err))
		}
	}
}

// expel drops an entry unless somebody uses it, and reports whether it is not here.
func (c *cache) expel(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil {
		return true
	}
	if e.users > 0 || !e.isReady() || e.template != nil && !e.template.isKept() {
		return false
	}
	c.drop(name)
	return true
}
