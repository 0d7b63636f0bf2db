package mcpserver

import (
	"context"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
)

type exposeInput struct {
	Name       ref    `json:"name" jsonschema:"handle or id of the instance"`
	Port       int    `json:"port" jsonschema:"port in the VM"`
	PublicPort int    `json:"public_port,omitempty" jsonschema:"port on the user's machine; without it a free one, which is kept"`
	Protocol   string `json:"protocol,omitempty" jsonschema:"http, the default, or tcp for what is no HTTP"`
}

type unexposeInput struct {
	Name      ref `json:"name" jsonschema:"handle or id of the instance"`
	GuestPort int `json:"guest_port" jsonschema:"port in the VM"`
}

type unexposed struct {
	Name      string `json:"name"`
	GuestPort int    `json:"guest_port"`
	Status    string `json:"status"`
}

func portSchema(s *jsonschema.Schema) {
	lo, hi := 1.0, 65535.0
	s.Minimum, s.Maximum = &lo, &hi
}

func (s *Server) addPorts() {
	add(s, tool[exposeInput, endpoint]{
		name: "instance_expose", title: "Open a port", effect: sets,
		about: "Open a port of an instance on 127.0.0.1 of the user's machine and return its URL. A connection wakes the instance. " +
			"Works in any state and is stable over restarts; servers that listen on 127.0.0.1 in the VM are reached too.",
		refine: func(in *jsonschema.Schema) {
			portSchema(in.Properties["port"])
			enum(in, "protocol", "http", "tcp")
		},
		do: func(ctx context.Context, _ *call, in exposeInput) (endpoint, error) {
			e, err := s.api.Expose(ctx, string(in.Name), api.ExposeRequest{Port: in.Port, PublicPort: in.PublicPort, Protocol: in.Protocol})
			return endpoint{e.GuestPort, e.PublicPort, e.Protocol, e.URL}, err
		},
	})
	add(s, tool[unexposeInput, unexposed]{
		name: "instance_unexpose", title: "Close a port", effect: sets,
		about:  "Close a port of an instance on the user's machine, with the connections that came in on it.",
		refine: func(in *jsonschema.Schema) { portSchema(in.Properties["guest_port"]) },
		do: func(ctx context.Context, _ *call, in unexposeInput) (unexposed, error) {
			return unexposed{string(in.Name), in.GuestPort, "closed"}, s.api.Unexpose(ctx, string(in.Name), in.GuestPort)
		},
	})
}
