package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

type tetherReadOptions struct {
	app     *app
	session string
	after   int64
	follow  bool
	json    bool
}

func newTetherRead(a *app) *cobra.Command {
	o := &tetherReadOptions{app: a}
	cmd := &cobra.Command{
		Use:   "read [OPTIONS] X",
		Short: "show the messages to and from the agent",
		Long: `Show the stored messages to and from the agent in an instance, oldest first: number, time, session, type
and text of each. With --follow it goes on with what comes. Reading does not wake the instance.`,
		Example: `  aegis tether read helper
  aegis tether read helper --session review --json
  aegis tether read -f --after 120 helper`,
		Args:              oneRef,
		ValidArgsFunction: a.completeRef,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes")
	f.StringVar(&o.session, "session", "", "only the conversation with that `ID`")
	f.Int64Var(&o.after, "after", 0, "only what has a higher `NUMBER`")
	f.BoolVar(&o.json, "json", false, "print a line of JSON for each")
	return cmd
}

func (o *tetherReadOptions) run(ctx context.Context, ref string) error {
	q := client.TetherQuery{Session: api.Session{ID: o.session}, After: o.after, Limit: 200}
	if o.follow {
		q.Wait = 30 * time.Second
	}
	for {
		page, err := o.app.client().TetherPoll(ctx, ref, q)
		if err != nil {
			return err
		}
		for _, f := range page.Frames {
			if err := o.print(f); err != nil {
				return err
			}
		}
		if !o.follow && len(page.Frames) == 0 {
			return nil
		}
		q.After = page.NextSeq
	}
}

func (o *tetherReadOptions) print(f api.Frame) error {
	if o.json {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		return o.app.print("%s\n", b)
	}
	return o.app.print("%s", o.app.display(frameText(f)))
}

// frameText is a frame in lines for people.
func frameText(f api.Frame) string {
	text := ""
	switch f.Type { //nolint:exhaustive // the others have nothing to show
	case api.FrameUserMessage:
		m := payloadOf[api.UserMessage](f)
		text = withImages(m.Text, m.Images)
	case api.FrameDone, api.FrameReasoningDone:
		m := payloadOf[api.AssistantMessage](f)
		text = withImages(m.Text, m.Images)
	case api.FramePresence:
		text = payloadOf[api.Presence](f).State
	case api.FrameAck:
		text = payloadOf[api.Ack](f).ReplyTo
	}
	text = strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n    ")
	line := fmt.Sprintf("%d  %s  %s/%s  %s  %s", f.Seq, f.TS.Local().Format(time.DateTime), f.Session.Channel, f.Session.ID, f.Type, text)
	return strings.TrimRight(line, " ") + "\n"
}

// withImages is a text, and a line for each picture with it.
func withImages(text string, images []api.Picture) string {
	parts := []string{text}
	for _, p := range images {
		parts = append(parts, "[image "+p.Blob+"]")
	}
	return strings.Join(parts, "\n")
}
