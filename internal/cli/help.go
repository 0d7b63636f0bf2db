package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// describe sets how the root command and all below it show their help.
func describe(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
		// Asked for, so it is data; one who closed stdout does not want it.
		_, _ = cmd.OutOrStdout().Write([]byte(helpText(cmd)))
	})
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := cmd.OutOrStderr().Write([]byte(helpText(cmd)))
		return err
	})
}

// helpText is the manual of a command.
func helpText(cmd *cobra.Command) string {
	var b strings.Builder
	section := func(title, text string) {
		if text = strings.TrimRight(text, " \n"); text != "" {
			if b.Len() > 0 {
				b.WriteString("\n")
			}
			if title != "" {
				b.WriteString(title + ":\n")
			}
			b.WriteString(text + "\n")
		}
	}
	long := cmd.Long
	if long == "" {
		long = strings.ToUpper(cmd.Short[:1]) + cmd.Short[1:] + "."
	}
	section("", wrap(long))
	section("Usage", "  "+useLine(cmd))
	section("Commands", commandList(cmd))
	section("Options", flagList(cmd))
	section("Examples", cmd.Example)
	if cmd.HasAvailableSubCommands() {
		root, group, _ := strings.Cut(cmd.CommandPath()+" ", " ")
		section("", "`"+root+" help "+group+"COMMAND` tells all about a command.")
	}
	return b.String()
}

func useLine(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return cmd.Parent().CommandPath() + " " + cmd.Use
	}
	return cmd.Use
}

func commandList(cmd *cobra.Command) string {
	var b strings.Builder
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			b.WriteString("  " + c.Name() + strings.Repeat(" ", max(1, 12-len(c.Name()))) + c.Short + "\n")
		}
	}
	return b.String()
}

func flagList(cmd *cobra.Command) string {
	flags := cmd.LocalFlags()
	flags.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "help":
			f.Usage = "show this help"
		case "version":
			f.Usage = "show the version"
		}
	})
	return flags.FlagUsagesWrapped(width)
}

// width is that of a terminal nobody has made wider. Help is the same everywhere.
const width = 80

// wrap breaks paragraphs into lines.
func wrap(text string) string {
	var b strings.Builder
	for i, paragraph := range strings.Split(strings.TrimSpace(text), "\n\n") {
		if i > 0 {
			b.WriteString("\n\n")
		}
		used := 0
		for word := range strings.FieldsSeq(paragraph) {
			switch {
			case used == 0:
			case used+1+len(word) > width:
				b.WriteString("\n")
				used = 0
			default:
				b.WriteString(" ")
				used++
			}
			b.WriteString(word)
			used += len(word)
		}
	}
	return b.String()
}

func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "tell all about a command",
		Example: "  aegis help run",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return unknownCommand(about, rest)
			}
			return about.Help()
		},
	}
}
