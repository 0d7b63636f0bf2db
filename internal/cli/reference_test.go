package cli

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// TestReference holds the reference page to the commands.
func TestReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "reference", "cli.md")
	got := reference()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the commands are not what %s says; run make gen and read the difference", file)
	}
}

// reference is the page of all commands.
func reference() string {
	var b strings.Builder
	b.WriteString("# Commands\n\nPrinted from the commands by `make gen`. `aegis help COMMAND` says the same.\n\n")
	var all []*cobra.Command
	eachCommand(Commands(), func(c *cobra.Command) { all = append(all, c) })
	b.WriteString("| command | |\n|---|---|\n")
	for _, c := range all {
		fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	b.WriteString("\n" + statusTable())
	for _, c := range all {
		fmt.Fprintf(&b, "\n## %s\n\n%s", c.CommandPath(), chapter(c))
	}
	return b.String()
}

// chapter is what the page says of one command.
func chapter(c *cobra.Command) string {
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	long := c.Long
	if long == "" {
		long = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
	}
	text := wrap(long) + "\n\n" + fenced("", useLine(c))
	if options := strings.TrimRight(flagList(c), "\n"); options != "" {
		text += "\n" + fenced("", options)
	}
	if c.Example != "" {
		text += "\n" + fenced("sh", unindent(c.Example))
	}
	return text
}

func fenced(language, text string) string { return "```" + language + "\n" + text + "\n```\n" }

func unindent(s string) string { return strings.TrimPrefix(strings.ReplaceAll(s, "\n  ", "\n"), "  ") }

// eachCommand calls do for a command and all below it that users see.
func eachCommand(c *cobra.Command, do func(*cobra.Command)) {
	do(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			eachCommand(sub, do)
		}
	}
}

// statusTable lists the exit statuses that are AegisVM's own.
func statusTable() string {
	var b strings.Builder
	b.WriteString("## Exit status\n\n`run`, `exec` and `shell` end with the program's own status.\n\n| status | |\n|---|---|\n")
	for _, s := range []struct {
		status int
		says   string
	}{
		{0, "well"},
		{statusFailed, "it failed; the message says why"},
		{statusUsage, "the command line is wrong"},
		{statusNoDaemon, "no daemon runs"},
		{statusAegis, "of `run`, `exec` and `shell`: AegisVM itself failed"},
		{126, "the program cannot be executed"},
		{127, "the program was not found"},
		{130, "Ctrl-C; in general 128 and the signal that ended it"},
	} {
		fmt.Fprintf(&b, "| %d | %s |\n", s.status, s.says)
	}
	return b.String()
}

// TestEveryCommandHasAManual holds what the reference needs: every command says what it
// does, and shows how it is used.
func TestEveryCommandHasAManual(t *testing.T) {
	eachCommand(Commands(), func(c *cobra.Command) {
		if c.Short == "" || c.Example == "" || !strings.Contains(c.Example, "aegis") {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for line := range strings.Lines(helpText(c)) {
			// Examples are as long as they are.
			if len(strings.TrimRight(line, "\n")) > width && !strings.Contains(c.Example, strings.TrimSpace(line)) {
				t.Errorf("%s: a line of %d characters: %s", c.CommandPath(), len(line), line)
			}
		}
	})
}

// TestHelpAnywhere asks every command for help, also behind operands that it does not
// take: the answer is its manual, and status 0.
func TestHelpAnywhere(t *testing.T) {
	var paths []string
	eachCommand(Commands(), func(c *cobra.Command) {
		paths = append(paths, strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "aegis"), " "))
	})
	for _, path := range paths {
		for _, rest := range []string{"--help", "-h", "one two --help", "one -h two", "--help one"} {
			args := append(strings.Fields(path), strings.Fields(rest)...)
			if path == "help" && rest != "--help" && rest != "-h" {
				continue // its operands are commands
			}
			out, err := os.CreateTemp(t.TempDir(), "out")
			if err != nil {
				t.Fatal(err)
			}
			a := &app{out: out, err: out, lookup: os.LookupEnv, environ: os.Environ}
			root := newRoot(a)
			root.SetArgs(args)
			cmd, err := root.ExecuteContextC(t.Context())
			if status := a.finish(cmd, err); status != 0 {
				t.Errorf("aegis %s ends with %d: %v", strings.Join(args, " "), status, err)
			}
			text, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			if want := helpText(cmd); string(text) != want {
				t.Errorf("aegis %s prints\n%s", strings.Join(args, " "), text)
			}
			_ = out.Close() // only written by the command
		}
	}
}
