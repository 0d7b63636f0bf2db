package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// setting is one line of the table of all settings.
type setting struct {
	key   string
	value string // the default
	doc   string
	set   func(*Config, string) error
	get   func(*Config) string
}

var settings = []setting{
	choice("accel", AccelAuto, "what runs the guest's instructions; auto probes for working hardware virtualization",
		func(c *Config) *Accel { return &c.Accel }, AccelAuto, AccelKVM, AccelTCG),
	choice("vmm", VMMAuto, "the virtual machine monitor",
		func(c *Config) *VMM { return &c.VMM }, VMMAuto, VMMQEMU, VMMLibkrun),
	text("vm_user", "", "host account that VMMs run under where the daemon is root; empty lets the driver choose an unprivileged one",
		func(c *Config) *string { return &c.VMUser }),
	text("qemu", "", "program of QEMU, a name or a path; empty is the one for the host's architecture in PATH",
		func(c *Config) *string { return &c.QEMU }),
	text("libkrun", "", "library of libkrun, a name or a path; empty is where packages install it",
		func(c *Config) *string { return &c.Libkrun }),
	bytes("memory", "512M", "memory of an instance; a bare number is in MB", func(c *Config) *size.Bytes { return &c.Memory }),
	number("cpus", "1", "virtual CPUs of an instance", func(c *Config) *int { return &c.CPUs }),
	bytes("disk", "8G", "disk of an instance, which takes only what is written; a bare number is in MB",
		func(c *Config) *size.Bytes { return &c.Disk }),
	text("image", "", "image of an instance that asks for none; empty is the one that aegis setup made",
		func(c *Config) *string { return &c.Image }),
	bytes("image_quota", "64G", "what images may take on the disk; downloaded layers go first, as they can be fetched again",
		func(c *Config) *size.Bytes { return &c.ImageQuota }),
	choice("templates", On, "whether VMs start as clones of one that has booted, where the VMM can do that",
		func(c *Config) *Switch { return &c.Templates }, On, Off),
	{
		key: "router", value: "127.0.0.1:8099", doc: "address of the HTTP router, which finds instances by name, or off",
		set: func(c *Config, v string) error {
			if v != RouterOff {
				if _, err := netip.ParseAddrPort(v); err != nil {
					return fmt.Errorf("%q is not ADDRESS:PORT or off", v)
				}
			}
			c.Router = v
			return nil
		},
		get: func(c *Config) string { return c.Router },
	},
	modelServer("llm_ollama", "http://127.0.0.1:11434", "Ollama", func(c *Config) *string { return &c.Ollama }),
	modelServer("llm_lmstudio", "http://127.0.0.1:1234", "LM Studio", func(c *Config) *string { return &c.LMStudio }),
	modelServer("llm_vllm", "http://127.0.0.1:8000", "vLLM", func(c *Config) *string { return &c.VLLM }),
	{
		key: "log_level", value: "info", doc: "least severe level of the lines in aegisd.log: debug, info, warn or error",
		set: func(c *Config, v string) error {
			if c.LogLevel.UnmarshalText([]byte(v)) != nil {
				return fmt.Errorf("%q is not one of debug, info, warn, error", v)
			}
			return nil
		},
		get: func(c *Config) string { return strings.ToLower(c.LogLevel.String()) },
	},
	choice("log_format", LogText, "form of the lines in aegisd.log",
		func(c *Config) *LogFormat { return &c.LogFormat }, LogText, LogJSON),
	bytes("log_size", "10M", "size at which aegisd.log is cut off; what it held before is kept in aegisd.log.1",
		func(c *Config) *size.Bytes { return &c.LogSize }),
	duration("boot_timeout", "90s", "how long a VM may take from its start to the program's start",
		func(c *Config) *time.Duration { return &c.BootTimeout }),
	duration("stop_grace", "10s", "what programs get between SIGTERM and SIGKILL when an instance is stopped",
		func(c *Config) *time.Duration { return &c.StopGrace }),
	duration("poweroff_timeout", "5s", "how long a guest may take to turn itself off after stop_grace",
		func(c *Config) *time.Duration { return &c.PowerOffTimeout }),
	duration("kill_timeout", "20s", "how long a VMM may take to die when it is killed",
		func(c *Config) *time.Duration { return &c.KillTimeout }),
}

// RouterOff is the value of the setting router that opens none.
const RouterOff = "off"

// Keys returns the keys of all settings, in the order of the table.
func Keys() []string {
	keys := make([]string, 0, len(settings))
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	return keys
}

// Doc returns what the setting is for.
func Doc(key string) string {
	s, _ := find(key)
	return s.doc
}

func find(key string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

func unknown(key string, from Origin) error {
	return fault.New(fault.Invalid, "%s: %q is not a setting", from, key).
		WithHint("settings are: %s", strings.Join(Keys(), ", "))
}

func text(key, value, doc string, field func(*Config) *string) setting { //nolint:unparam // that all defaults are empty is chance
	return setting{
		key: key, value: value, doc: doc,
		set: func(c *Config, v string) error {
			*field(c) = v
			return nil
		},
		get: func(c *Config) string { return *field(c) },
	}
}

func choice[T ~string](key string, value T, doc string, field func(*Config) *T, of ...T) setting {
	names := make([]string, 0, len(of))
	for _, o := range of {
		names = append(names, string(o))
	}
	list := strings.Join(names, ", ")
	return setting{
		key: key, value: string(value), doc: doc + ": " + list,
		set: func(c *Config, v string) error {
			if !slices.Contains(names, v) {
				return fmt.Errorf("%q is not one of %s", v, list)
			}
			*field(c) = T(v)
			return nil
		},
		get: func(c *Config) string { return string(*field(c)) },
	}
}

func bytes(key, value, doc string, field func(*Config) *size.Bytes) setting {
	return setting{
		key: key, value: value, doc: doc,
		set: func(c *Config, v string) error {
			b, err := size.Parse(v, size.MiB)
			if err == nil && b < size.MiB {
				err = fmt.Errorf("%q is less than 1M", v)
			}
			*field(c) = b
			return err
		},
		get: func(c *Config) string { return field(c).String() },
	}
}

func number(key, value, doc string, field func(*Config) *int) setting {
	return setting{
		key: key, value: value, doc: doc,
		set: func(c *Config, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return fmt.Errorf("%q is not a number of 1 or more", v)
			}
			*field(c) = n
			return nil
		},
		get: func(c *Config) string { return strconv.Itoa(*field(c)) },
	}
}

func duration(key, value, doc string, field func(*Config) *time.Duration) setting {
	return setting{
		key: key, value: value, doc: doc,
		set: func(c *Config, v string) error {
			d, err := ParseDuration(v)
			if err == nil && d == 0 {
				err = fmt.Errorf("%q: it needs an end", v)
			}
			*field(c) = d
			return err
		},
		get: func(c *Config) string { return field(c).String() },
	}
}
