package kit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// finder looks through two folders, on a host with one program.
func finder(t *testing.T) (f *Finder, first, second string) {
	t.Helper()
	first, second = t.TempDir(), t.TempDir()
	return &Finder{
		Dirs: []string{first, filepath.Join(first, "missing"), second},
		Lookup: func(name string) (string, error) {
			if name == "there" {
				return "/bin/there", nil
			}
			return "", fs.ErrNotExist
		},
	}, first, second
}

func TestFind(t *testing.T) {
	f, first, second := finder(t)
	write(t, filepath.Join(first, "a.json"), `{"name":"a","version":"first","image":{"inject":["there"]}}`)
	write(t, filepath.Join(second, "a.json"), `{"name":"a","version":"second"}`)
	write(t, filepath.Join(second, "lacking.json"), `{"name":"lacking","instance_daemons":["not-there"],"image":{"inject":["there"]}}`)
	write(t, filepath.Join(second, "bad.json"), `{"name":"bad",}`)
	write(t, filepath.Join(second, "other.json"), `{"name":"a"}`)
	write(t, filepath.Join(second, "no kit"), `{}`)
	write(t, filepath.Join(second, "handle.json", "gateway.json"), `{}`)
	write(t, filepath.Join(second, "secret"), `{"name":"link"}`)
	if err := os.Symlink("/dev/zero", filepath.Join(second, "endless.json")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range f.All() {
		got = append(got, strings.TrimSpace(k.Name+" "+k.Version+" "+k.Status))
	}
	if want := []string{"a first ok", "bad  broken", "endless  broken", "lacking  broken", "other  broken"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	k, err := f.Get("a")
	if err != nil || k.Version != "first" {
		t.Errorf("%+v, %v", k, err)
	}
	for name, want := range map[string]string{"lacking": "program not-there", "bad": "good manifest", "other": `calls itself "a"`} {
		_, err := f.Get(name)
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"nobody", "../a", "", "handle"} {
		if _, err := f.Get(name); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
	if k := f.All()[3]; !slices.Equal(k.Missing, []string{"program not-there"}) || k.Status != api.KitBroken {
		t.Errorf("%+v", k)
	}
}

// TestOurKits reads the kits of this repository.
func TestOurKits(t *testing.T) {
	f := &Finder{Dirs: []string{"../../kits", "../../examples/kit"}, Lookup: func(string) (string, error) { return "", nil }}
	all := f.All()
	if len(all) != 2 || all[0].Name != "agent" || all[1].Name != "hello" {
		t.Fatalf("found %+v", all)
	}
	for _, k := range all {
		if k.Status != api.KitOK || len(k.Defaults.Command) == 0 || k.Description == "" || len(k.Config) != 2 {
			t.Errorf("%+v", k)
		}
	}
	if c := all[0].Defaults.Capabilities; !c.Spawn || c.SpawnDepth != 2 || c.MaxChildren != 5 {
		t.Errorf("an agent may %+v", c)
	}
}

func TestConfig(t *testing.T) {
	home := paths.Home(t.TempDir())
	c := NewConfig(home)
	if _, err := c.Read("bot", "gateway.json"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("before there is any: %v", err)
	}
	if err := errors.Join(c.Begin("bot", "gateway.json", []byte("first")), c.Begin("bot", "gateway.json", []byte("second"))); err != nil {
		t.Fatal(err)
	}
	if b, err := c.Read("bot", "gateway.json"); string(b) != "first" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.Write("bot", "gateway.json", []byte("mine")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(home.Kits(), "bot", "gateway.json")
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left beside it: %v", names)
	}
	for _, name := range []string{"", ".", "..", "../x", "/etc/passwd", "a/b", ".hidden", strings.Repeat("x", 64)} {
		_, read := c.Read("bot", name)
		if wrote := c.Write("bot", name, nil); fault.KindOf(read) != fault.Denied || fault.KindOf(wrote) != fault.Denied {
			t.Errorf("%q: %v, %v", name, read, wrote)
		}
	}
	if err := c.Write("bot", "large", make([]byte, MaxConfig+1)); fault.KindOf(err) != fault.TooLarge {
		t.Errorf("too much: %v", err)
	}
	if _, err := c.Dir("../bot"); err == nil {
		t.Error("a path is a handle")
	}
}

// TestConfigFollowsNoLinks: neither a file nor the folder may lead elsewhere.
func TestConfigFollowsNoLinks(t *testing.T) {
	home := paths.Home(t.TempDir())
	c := NewConfig(home)
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, filepath.Join(outside, "file"), "private")
	if _, err := c.Ensure("bot"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home.Kits(), "bot")
	if err := errors.Join(os.Symlink(filepath.Join(outside, "file"), filepath.Join(dir, "file")), os.Symlink(outside, filepath.Join(home.Kits(), "linked"))); err != nil {
		t.Fatal(err)
	}
	if b, err := c.Read("bot", "file"); err == nil {
		t.Errorf("read %q", b)
	}
	if err := c.Write("bot", "file", []byte("mine")); err != nil { // takes the link's place
		t.Fatal(err)
	}
	if b, err := c.Read("linked", "file"); err == nil {
		t.Errorf("read %q", b)
	}
	if err := errors.Join(c.Remove("linked"), c.Remove("bot"), c.Remove("bot")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "file")); string(b) != "private" {
		t.Errorf("what is outside is now %q, %v", b, err)
	}
}

// TestKitsAreNoConfig: handles and kits share a folder.
func TestKitsAreNoConfig(t *testing.T) {
	home := paths.Home(t.TempDir())
	c := NewConfig(home)
	file := filepath.Join(home.Kits(), "agent.json")
	write(t, file, `{"name":"agent"}`)
	if err := c.Write("agent.json", "x", nil); fault.KindOf(err) != fault.Conflict {
		t.Errorf("err = %v", err)
	}
	if err := c.Remove("agent.json"); err != nil {
		t.Fatal(err)
	}
	for _, handle := range []string{"inst-1", "inst-2", "bot"} {
		if err := c.Write(handle, "x", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Sweep(func(handle string) bool { return handle == "inst-1" }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(home.Kits())
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"agent.json", "bot", "inst-1"}; !slices.Equal(names, want) || err != nil {
		t.Errorf("left: %q, %v", names, err)
	}
}
