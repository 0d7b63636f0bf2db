package kit

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const whole = `{
	"name": "agent", "version": "2", "description": "An agent", "usage": "talk to it",
	"config": [{"path": "/workspace/.aegis/agent.json", "label": "Agent", "default": {"model": "", "api_key_env": "KEY", "deep": [{"x_env": "OTHER"}]}},
	           {"path": "notes.txt", "default": "as it is"}],
	"instance_daemons": [{"binary": "aegis-gateway", "config": {"path": "gateway.json", "label": "Gateway", "default": {}}}, "plain"],
	"image": {"base": "python:3", "inject": ["aegis-agent"]},
	"defaults": {"command": ["aegis-agent"], "capabilities": {"spawn": true, "spawn_depth": 2}}
}`

func TestParse(t *testing.T) {
	m, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "agent" || m.Version != "2" || m.Image.Base != "python:3" || m.Defaults.Command[0] != "aegis-agent" ||
		!m.Defaults.Capabilities.Spawn || m.Defaults.Capabilities.SpawnDepth != 2 {
		t.Errorf("%+v", m)
	}
	if got, want := m.Programs(), []string{"aegis-agent", "aegis-gateway", "plain"}; !slices.Equal(got, want) {
		t.Errorf("programs %q", got)
	}
	if m.Config[0].Path != ".aegis/agent.json" || !strings.HasPrefix(string(m.Config[0].Default), "{\n  \"model\"") || string(m.Config[1].Default) != "as it is" {
		t.Errorf("files %s", m.Config)
	}
	if got, want := m.ReferencedEnv(), []string{"KEY", "OTHER"}; !slices.Equal(got, want) {
		t.Errorf("it speaks of %q", got)
	}
	if s := m.Sidecars; s[0].Config.Path != "gateway.json" || string(s[0].Config.Default) != "{}\n" || s[1].Binary != "plain" || s[1].Config != nil {
		t.Errorf("sidecars %+v", s)
	}
	if m, err := Parse([]byte(`{"name":"small"}`)); err != nil || len(m.Programs()) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestParseRefuses what could be a path, and what is not understood.
func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":            ``,
		"not JSON":           `name = "x"`,
		"not UTF-8":          "{\"name\":\"x\",\"usage\":\"\xff\"}",
		"an unknown field":   `{"name":"x","comand":[]}`,
		"two values":         `{"name":"x"}{}`,
		"no name":            `{}`,
		"a path as name":     `{"name":"../x"}`,
		"a path to inject":   `{"name":"x","image":{"inject":["/bin/sh"]}}`,
		"dots to inject":     `{"name":"x","image":{"inject":[".."]}}`,
		"a sidecar's path":   `{"name":"x","instance_daemons":["bin/x"]}`,
		"a sidecar of none":  `{"name":"x","instance_daemons":[null]}`,
		"an empty sidecar":   `{"name":"x","instance_daemons":[""]}`,
		"unknown in sidecar": `{"name":"x","instance_daemons":[{"binary":"y","args":[]}]}`,
		"a sidecar's file":   `{"name":"x","instance_daemons":[{"binary":"y","config":{"path":"a/b"}}]}`,
		"two on one file":    `{"name":"x","instance_daemons":[{"binary":"y","config":{"path":"b"}},{"binary":"z","config":{"path":"b"}}]}`,
		"a program twice":    `{"name":"x","instance_daemons":["y","y"]}`,
		"out of workspace":   `{"name":"x","config":[{"path":"../x"}]}`,
		"out, below":         `{"name":"x","config":[{"path":"/workspace/../etc/passwd"}]}`,
		"elsewhere":          `{"name":"x","config":[{"path":"/etc/passwd"}]}`,
		"the workspace":      `{"name":"x","config":[{"path":"/workspace/."}]}`,
		"a file twice":       `{"name":"x","config":[{"path":"a"},{"path":"/workspace/./a"}]}`,
		"a command of none":  `{"name":"x","defaults":{"command":[""]}}`,
		"too large":          `{"name":"x","usage":"` + strings.Repeat("x", MaxManifest) + `"}`,
		"a long text":        `{"name":"x","usage":"` + strings.Repeat("x", maxText+1) + `"}`,
		"a long list":        `{"name":"x","defaults":{"command":["x"` + strings.Repeat(`,"x"`, maxList) + `]}}`,
	} {
		if m, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestSecretNames(t *testing.T) {
	for file, want := range map[string][]string{
		`{"bot_token_secret":"A","b":[{"x_secret":"B"},{"x_secret":"A"}]}`: {"A", "B"},
		`{"x_secret":"not a name","y_secret":"a=b","z_secret":["C"]}`:      nil,
		`{"secret":"A","_secret":"B"}`:                                     {"B"},
		`{"a_secret":`:                                                     nil,
		``:                                                                 nil,
	} {
		got, ok := SecretNames([]byte(file))
		if broken := !strings.HasSuffix(file, "}"); !slices.Equal(got, want) || ok == broken {
			t.Errorf("%s: %q, want %q, and it is ok: %v", file, got, want, ok)
		}
	}
}

// FuzzParse: a manifest that is taken names no paths, and is the same when it is written
// and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{whole, `{"name":"x","instance_daemons":["y",{"binary":"z","config":null}]}`, `{"name":"x","config":[{"path":"a//b","default":null}]}`, `{`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, p := range m.Programs() {
			if p != filepath.Base(p) || p == "." || p == ".." {
				t.Errorf("program %q", p)
			}
		}
		for _, c := range m.Config {
			if !filepath.IsLocal(c.Path) {
				t.Errorf("file %q", c.Path)
			}
		}
		for _, s := range m.Sidecars {
			if s.Config != nil && s.Config.Path != filepath.Base(s.Config.Path) {
				t.Errorf("file %q", s.Config.Path)
			}
		}
		if names := m.ReferencedEnv(); len(names) > maxNames*2*maxList {
			t.Errorf("%d names", len(names))
		}
		if _, err := json.Marshal(Found{Manifest: m}.API()); err != nil {
			t.Error(err)
		}
		if again, err := Parse(b); err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("read again: %+v, %v", again, err)
		}
	})
}

// FuzzSecretNames: a sidecar's file cannot ask for what has no name of a secret.
func FuzzSecretNames(f *testing.F) {
	f.Add([]byte(`{"a":[{"x_secret":"A"}],"y_secret":"*"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, _ := SecretNames(b)
		for _, n := range names {
			if strings.ContainsAny(n, "*=/ \x00") || n == "" {
				t.Errorf("%q", n)
			}
		}
	})
}
