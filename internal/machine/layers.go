package machine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"github.com/xfeldman/aegisvm/internal/logattr"
)

// layerForm is how layers are named.
var layerForm = regexp.MustCompile(`^layer-[0-9a-f]{16}$`)

func newLayerID() string {
	var r [8]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return "layer-" + hex.EncodeToString(r[:])
}

func (g *Ground) layerPath(id string) string { return filepath.Join(g.home.Layers(), id) }

// pins are the layers that somebody works with whose names may be on disk nowhere.
type pins struct {
	mu    sync.Mutex
	count map[string]int
	spare map[string]bool // let go while a collection runs, which may not have seen who names them; nil else
	again bool            // collect once more
}

func (p *pins) hold(layers []layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range layers {
		p.count[l.ID]++
	}
}

func (p *pins) letGo(layers []layer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range layers {
		if p.count[l.ID]--; p.count[l.ID] == 0 {
			delete(p.count, l.ID)
		}
		if p.spare != nil {
			p.spare[l.ID] = true
		}
	}
}

// begin begins a collection, unless one runs: that one is repeated then.
func (p *pins) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare != nil {
		p.again = true
		return false
	}
	p.spare, p.again = map[string]bool{}, false
	return true
}

// end ends a collection, and reports whether there is to be another.
func (p *pins) end() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := p.again
	p.spare, p.again = nil, false
	return again
}

// free reports whether a layer that nobody names can go.
func (p *pins) free(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count[id] == 0 && !p.spare[id]
}

// collectLater removes in the background the layers that nobody names any more.
func (g *Ground) collectLater() {
	g.work.Go(func() {
		if err := g.collectLayers(); err != nil {
			g.log.Error("collect disks", logattr.Err(err)) // they are tried again at the next chance
		}
	})
}

// collectLayers removes the layers that nobody names.
func (g *Ground) collectLayers() error {
	for again := true; again; {
		if !g.pins.begin() {
			return nil
		}
		err := g.collectOnce()
		again = g.pins.end() && err == nil
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Ground) collectOnce() error {
	entries, err := os.ReadDir(g.home.Layers())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	named, err := g.namedLayers()
	if err != nil {
		return err // what cannot be read may name any of them
	}
	var errs []error
	for _, e := range entries {
		if layerForm.MatchString(e.Name()) && !named[e.Name()] && g.pins.free(e.Name()) {
			errs = append(errs, os.Remove(g.layerPath(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// namedLayers returns the layers that instances and snapshots lie on.
func (g *Ground) namedLayers() (map[string]bool, error) {
	named := map[string]bool{}
	note := func(data []byte) error {
		var has struct {
			Layers []layer `json:"layers"`
		}
		err := json.Unmarshal(data, &has)
		for _, l := range has.Layers {
			named[l.ID] = true
		}
		return err
	}
	err := errors.Join(eachRecord(g.home.Instances(), diskName, note), eachRecord(g.home.Snapshots(), manifestName, note))
	return named, err
}

// eachRecord gives do what stands in the file of that name in each folder of parent that has it.
func eachRecord(parent, name string, do func(data []byte) error) error {
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(parent, e.Name(), name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue
		}
		if err == nil {
			err = do(data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}
