// Command man writes the manual pages of aegis and its commands into a folder: the text
// that `aegis help` shows, as packages install it.
//
// Usage: man FOLDER. SOURCE_DATE_EPOCH, in seconds, is the date that the pages bear.
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/xfeldman/aegisvm/internal/cli"
)

func main() { os.Exit(run(os.Args[1:])) } //nolint:forbidigo // a main that is not in cmd: users get its output alone

func run(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: man FOLDER")
		return 2
	}
	if err := write(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		return 1
	}
	return 0
}

func write(dir string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	date := time.Unix(seconds, 0).UTC()
	root := cli.Commands()
	plain(root)
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "AegisVM", Manual: "AegisVM"}, dir)
}

// plain leaves out what differs from day to day, and the word flags behind usage lines that
// have one of their own.
func plain(c *cobra.Command) {
	c.DisableAutoGenTag, c.DisableFlagsInUseLine = true, true
	for _, sub := range c.Commands() {
		plain(sub)
	}
}
