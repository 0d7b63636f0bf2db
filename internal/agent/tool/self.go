package tool

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/xfeldman/aegisvm/api"
)

// Host is what tools need of the host.
type Host interface {
	// Self returns what the host says of this machine.
	Self(ctx context.Context) (json.RawMessage, error)
	// Restart restarts this machine.
	Restart(ctx context.Context) error
	// Notify sends a message to a session; of an empty one to that where the user wrote last.
	Notify(ctx context.Context, to api.Session, text string) (api.Session, error)
}

// Self returns the tools that are about the machine and its user.
func Self(host Host) []Tool {
	return []Tool{
		{
			Name:        "self_info",
			Description: "What the host knows of this machine: id, handle, image, open ports and their addresses on the host.",
			Schema:      object(),
			Run: func(ctx context.Context, _ Call) (Result, error) {
				raw, err := host.Self(ctx)
				return Result{Text: string(raw)}, err
			},
		},
		{
			Name:        "self_restart",
			Description: "Restart this machine. Everything that runs in it ends, you too; files stay, and you go on here afterwards.",
			Schema:      object(),
			Run: func(ctx context.Context, _ Call) (Result, error) {
				if err := host.Restart(ctx); err != nil {
					return Result{}, err
				}
				return text("the machine is about to restart"), nil
			},
		},
		{
			Name: "notify",
			Description: "Send the user a message at once, beside your answer. From a scheduled message it is the only way to reach them: " +
				"it goes to where they wrote last, or to the session you name.",
			Schema: object("text*", field("string", "the message"), "channel", field("string", "host, ui or telegram; default where the user wrote last"),
				"session_id", field("string", "the session on that channel")),
			Run: func(ctx context.Context, c Call) (Result, error) { return notify(ctx, host, c) },
		},
	}
}

func notify(ctx context.Context, host Host, c Call) (Result, error) {
	args, err := read[struct {
		Text      string `json:"text"`
		Channel   string `json:"channel"`
		SessionID string `json:"session_id"`
	}](c)
	switch {
	case err != nil:
		return Result{}, err
	case strings.TrimSpace(args.Text) == "":
		return Result{}, errors.New("text is empty")
	case (args.Channel == "") != (args.SessionID == ""):
		return Result{}, errors.New("channel and session_id go together")
	}
	to, err := host.Notify(ctx, api.Session{Channel: args.Channel, ID: args.SessionID}, args.Text)
	if err != nil {
		return Result{}, err
	}
	return text("sent to %s %s", to.Channel, to.ID), nil
}

// putFile writes a file, and makes its folder.
func putFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // other users of the machine may read it
		return err
	}
	return replace(path, data)
}
