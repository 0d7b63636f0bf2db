package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

func homeWith(t *testing.T, file string) paths.Home {
	t.Helper()
	home := paths.Home(t.TempDir())
	if file != "" {
		if err := os.WriteFile(home.Config(), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func TestDefaults(t *testing.T) {
	c, err := Load(homeWith(t, ""), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Accel != AccelAuto || c.VMM != VMMAuto || c.Memory != 512*size.MiB || c.CPUs != 1 || c.Disk != 8*size.GiB ||
		c.LogLevel != slog.LevelInfo || c.LogFormat != LogText || c.BootTimeout != 90*time.Second {
		t.Errorf("defaults = %+v", c)
	}
	for _, s := range c.Settings() {
		if s.Origin != OriginDefault || s.Doc == "" {
			t.Errorf("%+v: want a doc, and default as origin", s)
		}
	}
}

// TestOrigins sets one setting in every place: the later wins, and its place is
// told.
func TestOrigins(t *testing.T) {
	file := "# a comment\naccel = \"kvm\"\n\nmemory = 1024\ncpus = 2\nlog_level = 'debug'\nboot_timeout = \"2m\"\n"
	home := homeWith(t, file)
	env := []string{"AEGIS_MEMORY=2G", "AEGIS_CPUS=3", "AEGIS_HOME=/elsewhere", "AEGIS_NO_SETTING=1"}
	c, err := Load(home, env, map[string]string{"cpus": "4"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Accel != AccelKVM || c.Memory != 2*size.GiB || c.CPUs != 4 || c.LogLevel != slog.LevelDebug || c.BootTimeout != 2*time.Minute {
		t.Errorf("settings = %+v", c)
	}
	want := map[string]Origin{
		"accel": Origin(home.Config() + ":2"), "memory": "AEGIS_MEMORY", "cpus": "--cpus",
		"log_level": Origin(home.Config() + ":6"), "disk": OriginDefault,
	}
	for _, s := range c.Settings() {
		if o, ok := want[s.Key]; ok && s.Origin != o {
			t.Errorf("%s comes from %s, want %s", s.Key, s.Origin, o)
		}
	}
}

func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		env  string
		want string // after the home's path
	}{
		"unknown key":   {file: "memory = 512\n\nmemroy = 1", want: `config.toml:3: "memroy" is not a setting`},
		"unknown table": {file: "[vm]\nmemory = 1", want: `config.toml:1: "[vm]" is not a setting`},
		"dotted key":    {file: "vm.memory = 1", want: `config.toml:1: "vm.memory" is not a setting`},
		"twice":         {file: "cpus = 1\ncpus = 2", want: "config.toml:2: "},
		"not toml":      {file: "cpus = 1\nwhat is this", want: "config.toml:2: "},
		"not a value":   {file: "accel = [\"kvm\"]", want: "config.toml:1: accel takes a string or a number"},
		"no choice":     {file: "\naccel = \"fast\"", want: `config.toml:2: accel: "fast" is not one of auto, kvm, tcg`},
		"boolean":       {file: "cpus = true", want: "config.toml:1: cpus takes"},
		"zero":          {file: "cpus = 0", want: `"0" is not a number of 1 or more`},
		"variable":      {env: "AEGIS_MEMORY=lots", want: `AEGIS_MEMORY: memory: "lots" is not a size`},
		"empty":         {env: "AEGIS_ACCEL=", want: `AEGIS_ACCEL: accel: "" is not one of`},
		"little":        {env: "AEGIS_DISK=5K", want: `"5K" is less than 1M`},
		"never":         {env: "AEGIS_BOOT_TIMEOUT=0", want: "it needs an end"},
		"level":         {env: "AEGIS_LOG_LEVEL=loud", want: `"loud" is not one of debug, info`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(homeWith(t, c.file), []string{c.env}, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("err = %v, want %s", err, c.want)
			}
			if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
				t.Errorf("%s without a hint (%q)", fault.KindOf(err), fault.HintOf(err))
			}
		})
	}
}

func TestUnreadableFile(t *testing.T) {
	home := homeWith(t, "")
	if err := os.Mkdir(filepath.Join(string(home), "config.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(home, nil, nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("err = %v", err)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "3": 3 * time.Second, "1.5": 1500 * time.Millisecond, "90s": 90 * time.Second, "5m": 5 * time.Minute,
		"1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "250ms": 250 * time.Millisecond,
	} {
		if got, err := ParseDuration(in); got != want || err != nil {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "d", "-1", "-1s", "+1s", "1x", "1e3", "inf", "NaN", "999999999999d", "1 s", "0x10"} {
		if d, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("accel = \"kvm\"\n[x]\ny.z = 1\n")
	f.Add("memory = 1\r\n# x\ncpus = 0x1")
	f.Fuzz(func(t *testing.T, s string) {
		entries, err := parse("f", []byte(s))
		for _, e := range entries {
			if err == nil && !strings.HasPrefix(string(e.origin), "f:") {
				t.Errorf("%+v has no place", e)
			}
		}
	})
}
