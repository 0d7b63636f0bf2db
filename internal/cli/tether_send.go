package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

type tetherSendOptions struct {
	app     *app
	session string
	images  []string
	wait    bool
	json    bool
}

func newTetherSend(a *app) *cobra.Command {
	o := &tetherSendOptions{app: a}
	cmd := &cobra.Command{
		Use:   "send [OPTIONS] X TEXT",
		Short: "send the agent a message",
		Long: `Send the agent in an instance a message, and wake the instance. It is stored when the command returns, and
reaches the agent even if that does not listen yet. TEXT may be "-": then it is what stdin holds.

With --wait the command waits for the agent's answer and prints it as it comes.`,
		Example: `  aegis tether send helper "run the tests" --wait
  aegis tether send helper "what is this?" --image screen.png
  git diff | aegis tether send helper --session review -`,
		Args:              refAnd("text, in quotes"),
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	sessionFlag(f, &o.session)
	f.StringArrayVar(&o.images, "image", nil, "send the picture in `FILE`, too (repeat)")
	f.BoolVar(&o.wait, "wait", false, "wait for the answer and print it")
	f.BoolVar(&o.json, "json", false, "print JSON: what was stored, or with --wait the answer's frame")
	return cmd
}

func (o *tetherSendOptions) run(ctx context.Context, ref, text string) error {
	m, err := o.message(ctx, ref, text)
	if err != nil {
		return err
	}
	c := &conversation{app: o.app, ref: ref, session: hostSession(o.session)}
	sent, err := c.send(ctx, m)
	switch {
	case err != nil:
		return err
	case o.wait && o.json:
		f, err := c.answer(ctx, sent, nil)
		if err != nil {
			return err
		}
		return o.app.printJSON(f)
	case o.wait:
		_, err := c.answer(ctx, sent, func(s string) error { return o.app.print("%s", o.app.display(s)) })
		return err
	case o.json:
		return o.app.printJSON(sent)
	}
	return o.app.print("Message sent: %s\n", sent.MsgID)
}

// message returns what is to be sent, with its pictures kept in the workspace.
func (o *tetherSendOptions) message(ctx context.Context, ref, text string) (api.UserMessage, error) {
	if text == "-" {
		b, err := awaiting(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(o.app.in, maxMessage+1)) })
		if err != nil {
			return api.UserMessage{}, fmt.Errorf("read the text from stdin: %w", err)
		}
		if len(b) > maxMessage {
			return api.UserMessage{}, fault.New(fault.TooLarge, "the text is too long").WithHint("put it into a file in the instance: aegis cp")
		}
		text = string(b)
	}
	m := api.UserMessage{Text: text}
	if strings.TrimSpace(text) == "" && len(o.images) == 0 {
		return m, fault.New(fault.Invalid, "there is nothing to send").WithHint("see: aegis tether send --help")
	}
	for _, name := range o.images {
		data, err := readPicture(name)
		if err != nil {
			return m, err
		}
		blob, err := o.app.client().PutBlob(ctx, ref, data)
		if err != nil {
			return m, fmt.Errorf("send the picture %s: %w", name, err)
		}
		m.Images = append(m.Images, api.Picture{MediaType: blob.MediaType, Blob: blob.Blob, Size: blob.Size})
	}
	return m, nil
}

// readPicture reads a file that the API takes.
func readPicture(name string) ([]byte, error) {
	fi, err := os.Stat(name)
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() > api.MaxWorkspaceFile) {
		return nil, fault.New(fault.Invalid, "%s is no file, or one of over %d MB", name, api.MaxWorkspaceFile>>20).
			WithHint("send PNG, JPEG, GIF or WebP")
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the picture").WithHint("give the path of a file on this host")
	}
	return data, nil
}

// maxMessage bounds a text that is read from stdin, in bytes; the daemon has the last word.
const maxMessage = 512 << 10
