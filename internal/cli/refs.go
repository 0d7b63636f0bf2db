package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// oneRef takes the handle or id of one instance.
func oneRef(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage(cmd, "name an instance, by its handle or id")
	case len(args) > 1:
		return usage(cmd, "stray argument %q", args[1])
	}
	return nil
}

// refAnd takes an instance and one more argument, which is called that.
func refAnd(what string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return usage(cmd, "name an instance, by its handle or id")
		case len(args) == 1:
			return usage(cmd, "name a %s", what)
		case len(args) > 2:
			return usage(cmd, "stray argument %q", args[2])
		}
		return nil
	}
}

// refAndCommand takes an instance, and a command behind "--".
func refAndCommand(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0:
		return fault.New(fault.Invalid, "name an instance, by its handle or id").
			WithHint("as in: %s web -- uname -a", cmd.CommandPath())
	case dash < 0 && len(args) > 1:
		return fault.New(fault.Invalid, "stray argument %q", args[1]).
			WithHint("put the command behind --, as in: %s %s -- %s", cmd.CommandPath(), args[0], strings.Join(args[1:], " "))
	case dash > 1:
		return usage(cmd, "stray argument %q before --", args[1])
	case len(args) == 1 || args[1] == "":
		return fault.New(fault.Invalid, "no command to run").
			WithHint("put it behind --, as in: %s %s -- uname -a", cmd.CommandPath(), args[0])
	}
	return nil
}

// completionTimeout bounds what a person who presses Tab waits.
const completionTimeout = time.Second

// completeRef completes the handle of an instance, with its state beside it. Without
// a daemon there is nothing to complete; none is started for it.
func (a *app) completeRef(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	list, err := a.client().List(ctx, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var refs []cobra.Completion
	for _, i := range list {
		refs = append(refs, cobra.CompletionWithDesc(i.Handle, stateOf(i)))
	}
	return refs, cobra.ShellCompDirectiveNoFileComp
}
