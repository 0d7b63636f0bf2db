package kit

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Finder finds kits. Nothing is kept in memory: a kit that is put into a folder is there.
// Its methods may be called together.
type Finder struct {
	Dirs []string // looked through in this order
	// Lookup returns the path of a program of the host.
	Lookup func(name string) (string, error)
}

// NewFinder returns the Finder of a home.
func NewFinder(home paths.Home) *Finder { return &Finder{home.KitDirs(), paths.Find} }

// Found is a kit that is there, broken or not.
type Found struct {
	Manifest

	File    string   // the manifest's path
	Missing []string // what it is broken for want of
}

// maxKits bounds the kits of one folder.
const maxKits = 1000

// List returns all kits, by name.
func (f *Finder) List() []Found {
	byName := map[string]Found{}
	for _, dir := range f.Dirs {
		d, err := os.Open(dir)
		if err != nil {
			continue // there is none
		}
		entries, _ := d.ReadDir(maxKits) // what there is of a folder that cannot be read to its end
		_ = d.Close()                    // only read
		for _, e := range entries {
			name, ok := strings.CutSuffix(e.Name(), ".json")
			if _, known := byName[name]; ok && !known && !e.IsDir() && IsName(name) {
				byName[name] = f.read(filepath.Join(dir, e.Name()), name)
			}
		}
	}
	all := make([]Found, 0, len(byName))
	for _, k := range byName {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b Found) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Get returns the kit of that name, which is whole.
func (f *Finder) Get(name string) (Found, error) {
	if IsName(name) {
		for _, dir := range f.Dirs {
			file := filepath.Join(dir, name+".json")
			fi, err := os.Stat(file)
			if err != nil || fi.IsDir() {
				continue
			}
			k := f.read(file, name)
			if len(k.Missing) > 0 {
				return k, fault.New(fault.Unavailable, "the kit %s is broken: %s", name, strings.Join(k.Missing, "; ")).By(fault.Host).
					WithHint("put what is missing beside aegisd or on its PATH, or mend %s; see: aegis kit list", file)
			}
			return k, nil
		}
	}
	return Found{}, fault.New(fault.NotFound, "there is no kit %q", name).WithHint("see: aegis kit list")
}

// read reads the manifest of the kit name.
func (f *Finder) read(file, name string) Found {
	k := Found{File: file}
	m, err := readManifest(file)
	if err == nil && m.Name != name {
		err = fmt.Errorf("it calls itself %q", m.Name)
	}
	if err != nil {
		k.Name, k.Missing = name, []string{"a good manifest: " + reason(err)}
		return k
	}
	k.Manifest = m
	for _, p := range m.Programs() {
		if _, err := f.Lookup(p); err != nil {
			k.Missing = append(k.Missing, "program "+p)
		}
	}
	return k
}

func readManifest(file string) (Manifest, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return Manifest{}, err
	}
	if !fi.Mode().IsRegular() { // a pipe would hold us up
		return Manifest{}, errors.New("not a file")
	}
	r, err := os.Open(file)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = r.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err != nil {
		return Manifest{}, err
	}
	return Parse(b)
}

// reason leaves out what a person sees anyway.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// API returns the kit in the words of the API.
func (k Found) API() api.Kit {
	out := api.Kit{
		Name: k.Name, Version: k.Version, Description: k.Description, Usage: k.Usage, Status: api.KitOK, Missing: k.Missing,
		Image: k.Image.Base, Defaults: api.KitDefaults{Command: k.Defaults.Command, Capabilities: k.Defaults.Capabilities},
		Config: []api.KitConfig{}, ReferencedEnv: k.ReferencedEnv(),
	}
	if len(k.Missing) > 0 {
		out.Status = api.KitBroken
	}
	if out.ReferencedEnv == nil {
		out.ReferencedEnv = []string{}
	}
	for _, f := range k.files() {
		out.Config = append(out.Config, api.KitConfig{Path: f.Path, Label: f.Label})
	}
	return out
}

// All returns all kits in the words of the API.
func (f *Finder) All() []api.Kit {
	out := []api.Kit{}
	for _, k := range f.List() {
		out = append(out, k.API())
	}
	return out
}
