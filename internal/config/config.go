package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/size"
)

// Config is the settings in force in a home.
type Config struct {
	Home paths.Home

	Accel  Accel
	VMM    VMM
	VMUser string // host account that VMMs run under where the daemon is root; "" is chosen by the driver
	QEMU   string // its program, a name or a path; "" is the one of the host's architecture in PATH

	// Cloud Hypervisor: its program, "" for that of PATH or of the library folder; and where set-up
	// fetches one from, with the SHA-256 it must have. Without that nothing is fetched.
	CloudHypervisor       string
	CloudHypervisorURL    string
	CloudHypervisorSHA256 string
	Libkrun               string // the library, a name or a path; "" is where packages install it

	Memory size.Bytes // of an instance that asks for nothing else
	CPUs   int
	Disk   size.Bytes

	Image      string     // of an instance that asks for none; "" is the one of set-up
	ImageQuota size.Bytes // what images may take on the disk

	// Templates says whether instances start as clones of machines that have booted, where
	// the VMM can do that.
	Templates Switch

	Router string // address of the HTTP router, or "off"

	// Ollama, LMStudio and VLLM are where on this host model servers listen, for instances that may
	// use them; "off" is none.
	Ollama, LMStudio, VLLM string

	LogLevel  slog.Level
	LogFormat LogFormat
	LogSize   size.Bytes // at which the log is cut off; twice as much is kept

	BootTimeout     time.Duration
	StopGrace       time.Duration
	PowerOffTimeout time.Duration
	KillTimeout     time.Duration

	origins map[string]Origin
}

// Accel is what runs the guest's instructions.
type Accel string

// The accelerators.
const (
	AccelAuto Accel = "auto" // probe
	AccelKVM  Accel = "kvm"
	AccelTCG  Accel = "tcg"
)

// VMM names a driver.
type VMM string

// The VMMs.
const (
	VMMAuto VMM = "auto"
	VMMQEMU VMM = "qemu"

	VMMCloudHypervisor VMM = "cloud-hypervisor" // KVM only
	VMMLibkrun         VMM = "libkrun"          // which is a library
)

// Switch turns something on or off.
type Switch string

// The positions of a Switch.
const (
	On  Switch = "on"
	Off Switch = "off"
)

// LogFormat is the form of the lines in aegisd.log.
type LogFormat string

// The formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Origin says where a value comes from: "default", a file and line, a variable or a
// flag.
type Origin string

// OriginDefault is the origin of a value that nobody has set.
const OriginDefault Origin = "default"

// Setting is one setting as it is in force.
type Setting struct {
	Key    string
	Value  string
	Origin Origin
	Doc    string
}

// Load returns the settings in force. environ is what os.Environ returns; flags maps
// keys to the values of flags that were given.
func Load(home paths.Home, environ []string, flags map[string]string) (*Config, error) {
	c := &Config{Home: home, origins: map[string]Origin{}}
	for _, s := range settings {
		if err := c.set(s.key, s.value, OriginDefault); err != nil {
			return nil, err
		}
	}
	if err := c.loadFile(home.Config()); err != nil {
		return nil, err
	}
	env := environment(environ)
	for _, s := range settings {
		if v, ok := env[Variable(s.key)]; ok {
			if err := c.set(s.key, v, Origin(Variable(s.key))); err != nil {
				return nil, err
			}
		}
		if v, ok := flags[s.key]; ok {
			if err := c.set(s.key, v, Origin("--"+Flag(s.key))); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// loadFile sets what the file says. A file that does not exist says nothing.
func (c *Config) loadFile(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "cannot read the configuration").WithHint("mend or remove %s", path)
	}
	entries, err := parse(path, data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.set(e.key, e.value, e.origin); err != nil {
			return err
		}
	}
	return nil
}

// set reads one value. An empty value of a variable or flag is a value like any
// other.
func (c *Config) set(key, value string, from Origin) error {
	s, ok := find(key)
	if !ok {
		return unknown(key, from)
	}
	if err := s.set(c, value); err != nil {
		return fault.New(fault.Invalid, "%s: %s: %v", from, key, err).WithHint("%s: %s", key, s.doc)
	}
	c.origins[key] = from
	return nil
}

// Settings returns every setting in force, in the order of the table.
func (c *Config) Settings() []Setting {
	all := make([]Setting, 0, len(settings))
	for _, s := range settings {
		all = append(all, Setting{Key: s.key, Value: s.get(c), Origin: c.origins[s.key], Doc: s.doc})
	}
	return all
}

// Variable returns the environment variable of a setting.
func Variable(key string) string { return "AEGIS_" + strings.ToUpper(key) }

// Flag returns the flag of a setting, without its dashes.
func Flag(key string) string { return strings.ReplaceAll(key, "_", "-") }

func environment(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, e := range environ {
		if k, v, ok := strings.Cut(e, "="); ok {
			m[k] = v
		}
	}
	return m
}
