package cli

import (
	"encoding/json"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/api"
)

func newTether(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tether COMMAND",
		Short: "talk to the agent in an instance",
		Long: `Talk to the agent in an instance. Messages are stored by the daemon and brought to the agent, once and in
their order; an instance that sleeps is woken for them. The agent's answers are stored too.`,
		Example: `  aegis tether chat helper
  aegis tether send helper "what is new?" --wait
  aegis tether read helper -f`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTetherSend(a), newTetherRead(a), newTetherChat(a))
	return cmd
}

// defaultSession is the session of those who name none.
const defaultSession = "default"

func sessionFlag(f *pflag.FlagSet, session *string) {
	f.StringVar(session, "session", defaultSession, "the conversation, by its `ID`: the agent keeps them apart")
}

// hostSession is a session of this channel.
func hostSession(id string) api.Session { return api.Session{Channel: "host", ID: id} }

// payloadOf decodes a frame's payload; what cannot be decoded is zero.
func payloadOf[T any](f api.Frame) T {
	var v T
	_ = json.Unmarshal(f.Payload, &v) // the daemon has checked it
	return v
}

// display returns a text of an agent's as it can be shown: a terminal gets no control
// characters that could do something to it.
func (a *app) display(text string) string {
	if !isTerminal(a.out) {
		return text
	}
	return harmless(text)
}

// harmless takes the control characters out of a text, but for those of its lines.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}
