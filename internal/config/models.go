package config

import (
	"fmt"
	"net/url"
	"strings"
)

// ModelsOff is the value of a setting of a model server that is not to be used.
const ModelsOff = "off"

// Models returns where on this host model servers listen, by the names that capabilities
// have for them.
func (c *Config) Models() map[string]string {
	all := map[string]string{}
	for name, at := range map[string]string{"ollama": c.Ollama, "lmstudio": c.LMStudio, "vllm": c.VLLM} {
		if at != ModelsOff {
			all[name] = at
		}
	}
	return all
}

// modelServer is the setting of the address of a model server.
func modelServer(key, value, name string, field func(*Config) *string) setting {
	return setting{
		key: key, value: value,
		doc: "where on this host " + name + " listens, for instances whose capabilities name it, or off",
		set: func(c *Config, v string) error {
			v = strings.TrimSuffix(v, "/")
			u, err := url.Parse(v)
			if v != ModelsOff && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil) {
				return fmt.Errorf("%q is not http://ADDRESS:PORT or off", v)
			}
			*field(c) = v
			return nil
		},
		get: func(c *Config) string { return *field(c) },
	}
}
