package mcpserver

import (
	"context"
	"time"
)

type secretInput struct {
	Key   ref    `json:"key" jsonschema:"name of the secret, as an environment variable: API_KEY"`
	Value string `json:"value" jsonschema:"its value; it is stored encrypted and never shown again"`
}

type secretRef struct {
	Key ref `json:"key" jsonschema:"name of the secret"`
}

type secretEntry struct {
	Key       string    `json:"key"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

type secretsOutput struct {
	Secrets []secretEntry `json:"secrets"`
}

// addSecrets offers secrets. None of their values is in any result, log or error.
func (s *Server) addSecrets() {
	add(s, tool[secretInput, secretEntry]{
		name: "secret_set", title: "Store a secret", effect: sets,
		about: "Store a secret, encrypted, in the place of one of that name. Instances that name it in secrets of instance_start have it in their environment. " +
			"If you do not have the value, ask the user to run: aegis secret set KEY",
		do: func(ctx context.Context, _ *call, in secretInput) (secretEntry, error) {
			v, err := s.api.SetSecret(ctx, string(in.Key), in.Value)
			return secretEntry{v.Name, v.CreatedAt, v.UpdatedAt}, err
		},
	})
	add(s, tool[struct{}, secretsOutput]{
		name: "secret_list", title: "List secrets", effect: reads,
		about: "List the names and dates of all stored secrets. Values are never shown.",
		do: func(ctx context.Context, _ *call, _ struct{}) (secretsOutput, error) {
			all, err := s.api.Secrets(ctx)
			out := secretsOutput{Secrets: []secretEntry{}}
			for _, v := range all {
				out.Secrets = append(out.Secrets, secretEntry{v.Name, v.CreatedAt, v.UpdatedAt})
			}
			return out, err
		},
	})
	add(s, tool[secretRef, removed]{
		name: "secret_delete", title: "Delete a secret", effect: destroys,
		about: "Forget a secret. Programs that run and have it keep it.",
		do: func(ctx context.Context, _ *call, in secretRef) (removed, error) {
			return removed{string(in.Key), "deleted"}, s.api.DeleteSecret(ctx, string(in.Key))
		},
	})
}
