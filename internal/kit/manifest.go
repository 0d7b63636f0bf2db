package kit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// The limits of a manifest.
const (
	MaxManifest = 256 << 10 // bytes
	maxList     = 32        // entries of any list
	maxName     = 63        // bytes of a name
	maxText     = 4 << 10   // bytes of a text
)

// Manifest is a kit as its file describes it.
type Manifest struct {
	Name        string    `json:"name"` // that of the file, without .json
	Version     string    `json:"version"`
	Description string    `json:"description"`
	Usage       string    `json:"usage"`
	Config      []File    `json:"config"` // in the workspace
	Sidecars    []Sidecar `json:"instance_daemons"`
	Image       Image     `json:"image"`
	Defaults    Defaults  `json:"defaults"`
}

// Image is what the kit's instances stand on.
type Image struct {
	Base   string   `json:"base"`   // "" is the default image
	Inject []string `json:"inject"` // programs of the host that are on PATH in the VM
}

// Defaults is what an instance of the kit has where its request says nothing.
type Defaults struct {
	Command      []string          `json:"command"`
	Capabilities *api.Capabilities `json:"capabilities"`
}

// File is a file that configures an instance.
type File struct {
	// Path is relative to the workspace, with or without "/workspace/" before it; of a
	// sidecar's file it is a name.
	Path    string  `json:"path"`
	Label   string  `json:"label"`
	Default Content `json:"default"` // nil is no file
}

// Content is what a file holds at first: of a JSON string its text, of any other value
// that value, indented.
type Content []byte

// UnmarshalJSON implements json.Unmarshaler.
func (c *Content) UnmarshalJSON(b []byte) error {
	var text string
	if bytes.Equal(b, []byte("null")) {
		*c = nil
		return nil
	}
	if json.Unmarshal(b, &text) == nil {
		*c = Content(text)
		return nil
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	*c = out.Bytes()
	return nil
}

// Reader reads it.
func (c Content) Reader() io.Reader { return bytes.NewReader(c) }

// Sidecar is a program of the host that runs beside each instance.
type Sidecar struct {
	Binary string `json:"binary"`
	Config *File  `json:"config"`
}

// UnmarshalJSON implements json.Unmarshaler: a name alone is a sidecar without a file.
func (s *Sidecar) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, &s.Binary) == nil && s.Binary != "" {
		return nil
	}
	type plain Sidecar
	return strictjson.Decode(b, (*plain)(s))
}

// Parse reads a manifest, and says what is wrong with it.
func Parse(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > MaxManifest {
		return m, fmt.Errorf("larger than %d bytes", MaxManifest)
	}
	if err := strictjson.Decode(b, &m); err != nil {
		return Manifest{}, strictjson.Explain(b, err)
	}
	if err := m.check(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// IsName reports whether s can be the name of a kit, a program or a file: it never is a
// path.
func IsName(s string) bool { return len(s) <= maxName && nameForm.MatchString(s) }

func (m *Manifest) check() error {
	if !IsName(m.Name) {
		return fmt.Errorf("bad name %q", m.Name)
	}
	for field, text := range map[string]string{"version": m.Version, "description": m.Description, "usage": m.Usage, "image.base": m.Image.Base} {
		if len(text) > maxText {
			return fmt.Errorf("%s has more than %d bytes", field, maxText)
		}
	}
	for field, n := range map[string]int{
		"config": len(m.Config), "instance_daemons": len(m.Sidecars), "image.inject": len(m.Image.Inject), "defaults.command": len(m.Defaults.Command),
	} {
		if n > maxList {
			return fmt.Errorf("%s has more than %d entries", field, maxList)
		}
	}
	return errors.Join(m.checkPrograms(), m.checkFiles())
}

func (m *Manifest) checkPrograms() error {
	for i, name := range m.Programs() {
		if !IsName(name) {
			return fmt.Errorf("%q is no name of a program", name)
		}
		if slices.Contains(m.Programs()[:i], name) {
			return fmt.Errorf("the program %s is named twice", name)
		}
	}
	if len(m.Defaults.Command) > 0 && m.Defaults.Command[0] == "" {
		return errors.New("defaults.command names no program")
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	seen := map[string]bool{}
	for i := range m.Config {
		local, err := inWorkspace(m.Config[i].Path)
		if err == nil && seen[local] {
			err = fmt.Errorf("the file %s is there twice", local)
		}
		if err != nil {
			return err
		}
		seen[local] = true
		m.Config[i].Path = local
	}
	seen = map[string]bool{}
	for _, s := range m.Sidecars {
		if s.Config == nil {
			continue
		}
		if !IsName(s.Config.Path) {
			return fmt.Errorf("%q is no name of a sidecar's file", s.Config.Path)
		}
		if seen[s.Config.Path] {
			return fmt.Errorf("two sidecars have the file %s", s.Config.Path)
		}
		seen[s.Config.Path] = true
	}
	return nil
}

// inWorkspace returns the path of a file below the workspace.
func inWorkspace(p string) (string, error) {
	local := path.Clean(strings.TrimPrefix(p, "/workspace/"))
	if p == "" || local == "." || !filepath.IsLocal(local) || strings.ContainsRune(p, 0) || len(p) > maxText {
		return "", fmt.Errorf("%q is no file of the workspace", p)
	}
	return local, nil
}

// Programs returns the names of all programs that the kit needs on the host.
func (m *Manifest) Programs() []string {
	names := slices.Clone(m.Image.Inject)
	for _, s := range m.Sidecars {
		names = append(names, s.Binary)
	}
	return names
}

// ReferencedEnv returns the environment variables that the defaults of the kit's files
// speak of: the values of keys that end with _env, in order.
func (m *Manifest) ReferencedEnv() []string {
	var names []string
	for _, f := range m.files() {
		names = append(names, keyed(f.Default, "_env")...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (m *Manifest) files() []File {
	files := slices.Clone(m.Config)
	for _, s := range m.Sidecars {
		if s.Config != nil {
			files = append(files, *s.Config)
		}
	}
	return files
}
