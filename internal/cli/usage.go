package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// badFlag explains a flag that pflag refuses.
func badFlag(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		switch group := e.GetSpecifiedShortnames(); {
		case len(group) == 1:
			return usage(cmd, "unknown flag -%s", group)
		case group != "":
			return usage(cmd, "unknown flag -%s in -%s", e.GetSpecifiedName(), group)
		}
		f := usage(cmd, "unknown flag --%s", e.GetSpecifiedName())
		if like := similarFlag(cmd, e.GetSpecifiedName()); like != "" {
			f = f.WithHint("did you mean --%s? see: %s --help", like, cmd.CommandPath())
		}
		return f
	}
	if e, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return usage(cmd, "%s needs a value", dashed(e.GetFlag()))
	}
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return usage(cmd, "%s: %v", dashed(e.GetFlag()), plain(e))
	}
	return usage(cmd, "%v", err)
}

func dashed(f *pflag.Flag) string { return "--" + f.Name }

// plain drops what strconv says around its verdict.
func plain(e *pflag.InvalidValueError) string {
	switch e.GetFlag().Value.Type() {
	case "int":
		return fmt.Sprintf("%q is not a number", e.GetValue())
	case "bool":
		return fmt.Sprintf("%q is neither true nor false", e.GetValue())
	}
	return errors.Unwrap(e).Error()
}

// similarFlag returns the flag that was probably meant, or "".
func similarFlag(cmd *cobra.Command, name string) string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return similar(name, names)
}

// synonyms are words that other tools have for ours.
var synonyms = map[string]string{
	"ps": "list", "ls": "list", "rm": "delete", "remove": "delete", "create": "start", "kill": "stop",
	"unpause": "resume", "wake": "resume", "inspect": "info", "attach": "shell", "ssh": "shell", "copy": "cp",
}

// similarCommand returns the command below cmd, or of instances, that was probably meant,
// or "".
func similarCommand(cmd *cobra.Command, typed string) string {
	for _, word := range []string{typed, synonyms[typed]} {
		if slices.Contains(commandNames(cmd), word) {
			return word
		}
		for _, c := range cmd.Commands() { // most words are those of instances
			if c.Name() == "instance" && slices.Contains(commandNames(c), word) {
				return c.Name() + " " + word
			}
		}
	}
	return similar(typed, commandNames(cmd))
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// similar returns the one of names that is closest to what was typed, or "" if none has
// much of it.
func similar(typed string, names []string) string {
	best, distance := "", min(3, len(typed)) // further away is something else
	for _, name := range names {
		d := editDistance(typed, name)
		if d < distance || d == distance && best != "" && strings.HasPrefix(name, typed[:1]) && !strings.HasPrefix(best, typed[:1]) {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts the single letters to insert, delete or change that make b of
// a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// unknownCommand refuses operands of the root command, which are commands that do
// not exist.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	f := usage(cmd, "unknown command %q", args[0])
	if like := similarCommand(cmd, args[0]); like != "" {
		f = f.WithHint("did you mean %s? see: %s --help", like, cmd.CommandPath())
	}
	return f
}

// noArgs refuses stray operands.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "stray argument %q", args[0])
	}
	return nil
}

// commandBehindDash takes a command behind "--" and nothing before it.
func commandBehindDash(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) > 0:
		return fault.New(fault.Invalid, "stray argument %q", args[0]).
			WithHint("put the command behind --, as in: %s -- %s", cmd.CommandPath(), strings.Join(args, " "))
	case dash > 0:
		return usage(cmd, "stray argument %q before --", args[0])
	case len(args) == 0 || args[0] == "":
		return fault.New(fault.Invalid, "no command to run").
			WithHint("put it behind --, as in: %s -- uname -a", cmd.CommandPath())
	}
	return nil
}
