package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// TestReference holds the reference page to the table of settings.
func TestReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "reference", "config.md")
	got := reference(t)
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
		t.Errorf("the settings are not what %s says; run make gen and read the difference", file)
	}
}

// reference is the page of all settings. Its example must be one.
func reference(t *testing.T) string {
	t.Helper()
	const example = "memory = \"1G\"\ncpus = 2\naccel = \"tcg\"\n"
	if _, err := parse("config.toml", []byte(example)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Settings\n\nPrinted from the table of settings by `make gen`.\n\n" +
		"A setting has its default, unless `config.toml` in AEGIS_HOME says otherwise, unless a variable does, unless\n" +
		"a flag of `aegisd` does. What is no setting is an error. `aegis config show` tells what is in force, and where\n" +
		"it comes from; a daemon that runs has the settings of its own start.\n\n" +
		"```toml\n" + example + "```\n\n" +
		"| setting | default | variable | flag | |\n|---|---|---|---|---|\n")
	for _, s := range settings {
		value := ""
		if s.value != "" {
			value = "`" + s.value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | `--%s` | %s |\n", s.key, value, Variable(s.key), Flag(s.key), s.doc)
	}
	b.WriteString("\n`AEGIS_HOME` moves everything; without it that is `~/.aegis`. Sizes take K, M, G or T, durations s, m, h or d.\n")
	return b.String()
}
