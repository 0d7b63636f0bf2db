package httpapi

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// Secrets is what the API needs of stored secrets. *vault.Vault is one.
type Secrets interface {
	Set(ctx context.Context, name string, value secret.Value) (secret.Meta, error)
	List(ctx context.Context) ([]secret.Meta, error)
	Delete(ctx context.Context, name string) error
	Rotate(ctx context.Context) (int, error)
}

// maxSecretBody is the largest value in JSON: each byte may be written as \u00xx.
const maxSecretBody = 6*int64(secret.MaxValue) + 1<<10

// refusal is the type of answers that never come: such a route is there to say no.
type refusal struct{}

// setSecret answers PUT /v1/secrets/{name}.
func (s *Server) setSecret(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := secret.CheckName(name); err != nil {
		return err
	}
	value, err := readSecret(r)
	if err != nil {
		return err
	}
	m, err := s.conf.Secrets.Set(r.Context(), name, value)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, secretOf(m))
	return nil
}

// readSecret reads an api.SecretValue. What is not UTF-8 is refused: encoding/json
// would put other letters in its place without a word.
func readSecret(r *http.Request) (secret.Value, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return secret.Value{}, malformed(err)
	}
	if !utf8.Valid(body) {
		return secret.Value{}, secret.NotText()
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var req api.SecretValue
	if err := decode(r, &req); err != nil {
		return secret.Value{}, err
	}
	return secret.New(req.Value), secret.CheckValue(req.Value)
}

// listSecrets answers GET /v1/secrets.
func (s *Server) listSecrets(w http.ResponseWriter, r *http.Request) error {
	all, err := s.conf.Secrets.List(r.Context())
	if err != nil {
		return err
	}
	out := make([]api.Secret, 0, len(all))
	for _, m := range all {
		out = append(out, secretOf(m))
	}
	s.answer(w, r, http.StatusOK, out)
	return nil
}

func secretOf(m secret.Meta) api.Secret {
	return api.Secret{Name: m.Name, CreatedAt: m.Created, UpdatedAt: m.Updated}
}

// refuseSecret answers GET /v1/secrets/{name}, which once told the value.
func (*Server) refuseSecret(http.ResponseWriter, *http.Request) error {
	return fault.New(fault.Denied, "values of secrets are never returned").
		WithHint("a program has it in its environment when asked to: aegis run --secret NAME -- COMMAND")
}

// deleteSecret answers DELETE /v1/secrets/{name}.
func (s *Server) deleteSecret(w http.ResponseWriter, r *http.Request) error {
	if err := s.conf.Secrets.Delete(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Outcome{Status: "deleted"})
	return nil
}

// rotateKey answers POST /v1/master-key/rotate.
func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request) error {
	n, err := s.conf.Secrets.Rotate(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.Rotated{Secrets: n})
	return nil
}

// grantSecrets answers PUT /v1/instances/{id}/secrets.
func (s *Server) grantSecrets(w http.ResponseWriter, r *http.Request) error {
	var req api.SecretNames
	if err := decode(r, &req); err != nil {
		return err
	}
	if req.Secrets == nil {
		return fault.New(fault.Invalid, "the request names no secrets").WithHint("to take all away, send an empty list")
	}
	g, err := s.conf.Instances.SetSecrets(r.Context(), r.PathValue("id"), req.Secrets)
	if err != nil {
		return err
	}
	s.answer(w, r, http.StatusOK, api.InstanceSecrets{SecretKeys: names(g.Names), RestartRequired: g.Restart})
	return nil
}

// names returns list as JSON has it: none is [], not null.
func names(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
