package api

import "time"

// SecretValue is the body of PUT /v1/secrets/{name}: UTF-8 text of 1 MiB at most. The
// answer is a Secret; no answer ever has the value.
type SecretValue struct {
	Value string `json:"value"`
}

// Secret is one line of GET /v1/secrets.
type Secret struct {
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"` // when its value was set last
}

// Rotated answers POST /v1/master-key/rotate.
type Rotated struct {
	Secrets int `json:"secrets"` // how many were sealed anew
}

// SecretNames is the body of PUT /v1/instances/{id}/secrets: all that its program and
// execs are to have in their environment. "*" is all that are stored.
type SecretNames struct {
	Secrets []string `json:"secrets"`
}

// InstanceSecrets answers PUT /v1/instances/{id}/secrets. Execs have the secrets from
// now on; the program that runs gets them by a restart.
type InstanceSecrets struct {
	SecretKeys      []string `json:"secret_keys"`
	RestartRequired bool     `json:"restart_required,omitempty"`
}
