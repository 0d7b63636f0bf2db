package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/internal/cli"
)

// TestWrite holds the pages to the commands: each has one, and its synopsis is the usage that
// help shows.
func TestWrite(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir, again := t.TempDir(), t.TempDir()
	for _, d := range []string{dir, again} {
		if err := write(d); err != nil {
			t.Fatal(err)
		}
	}
	var each func(*cobra.Command)
	each = func(c *cobra.Command) {
		if c.Name() == "help" {
			return // of commands, which these pages are
		}
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		second, err := os.ReadFile(filepath.Join(again, name))
		if err != nil || string(page) != string(second) {
			t.Errorf("%s is not the same twice: %v", name, err)
		}
		if !strings.Contains(string(page), ".SH SYNOPSIS") || strings.Contains(string(page), "[flags]") || !strings.Contains(string(page), "Nov 2023") {
			t.Errorf("%s is\n%s", name, page)
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(cli.Commands())
}

func TestWriteNeedsADate(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "")
	if err := write(t.TempDir()); err == nil {
		t.Error("pages without a date")
	}
}
