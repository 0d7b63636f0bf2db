package mcpserver

import (
	"context"

	"github.com/xfeldman/aegisvm/api"
)

type kitEntry struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Description string   `json:"description"`
	Usage       string   `json:"usage,omitempty" jsonschema:"how to use it"`
	Status      string   `json:"status" jsonschema:"ok or broken"`
	Missing     []string `json:"missing,omitempty" jsonschema:"what it is broken for want of"`
	Image       string   `json:"image,omitempty"`
	Command     []string `json:"command,omitempty" jsonschema:"what its instances run where instance_start says nothing"`
	Config      []string `json:"config,omitempty" jsonschema:"files that configure an instance of it"`
	Env         []string `json:"env,omitempty" jsonschema:"environment variables it looks at, most of them secrets to be stored first"`
}

func kitOf(k api.Kit) kitEntry {
	e := kitEntry{
		Name: k.Name, Version: k.Version, Description: k.Description, Usage: k.Usage, Status: k.Status, Missing: k.Missing,
		Image: k.Image, Command: k.Defaults.Command, Env: k.ReferencedEnv,
	}
	for _, f := range k.Config {
		e.Config = append(e.Config, f.Path)
	}
	return e
}

type kitsOutput struct {
	Kits []kitEntry `json:"kits"`
}

func (s *Server) addKits() {
	add(s, tool[struct{}, kitsOutput]{
		name: "kit_list", title: "List kits", effect: reads,
		about: "List kits: prepared setups for instances, such as an LLM agent. Start one with kit of instance_start.",
		do: func(ctx context.Context, _ *call, _ struct{}) (kitsOutput, error) {
			all, err := s.api.Kits(ctx)
			out := kitsOutput{Kits: []kitEntry{}}
			for _, k := range all {
				out.Kits = append(out.Kits, kitOf(k))
			}
			return out, err
		},
	})
}
