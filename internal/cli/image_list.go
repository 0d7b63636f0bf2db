package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/size"
)

type imageListOptions struct {
	app  *app
	json bool
}

func newImageList(a *app) *cobra.Command {
	o := &imageListOptions{app: a}
	cmd := &cobra.Command{
		Use:   "list [--json]",
		Short: "list the images that are here",
		Long: `List the images that are here, with what each takes on the disk. The one of instances that ask for
none has a * behind its name.`,
		Example: `  aegis image list
  aegis image list --json | jq -r '.[].id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imageListOptions) run(ctx context.Context) error {
	all, err := o.app.client().Images(ctx)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(all)
	}
	if len(all) == 0 {
		o.app.say("no images")
		return nil
	}
	return o.app.print("%s", imagesText(all, time.Now()))
}

func imagesText(all []api.Image, now time.Time) string {
	rows := [][]string{{"NAME", "ID", "SIZE", "USED BY", "AGE", "FROM"}}
	for _, i := range all {
		used := "-"
		if len(i.UsedBy) > 0 {
			used = strconv.Itoa(len(i.UsedBy))
		}
		for n, name := range append(i.Names, "-")[:max(1, len(i.Names))] {
			if i.Default && n == 0 {
				name += "*"
			}
			rows = append(rows, []string{name, shortID(i.ID), size.Bytes(i.Size).String(), used, spanText(now.Sub(i.StoredAt)), i.From})
		}
	}
	return table(rows)
}

// shortID is as much of an id as tells images apart.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}
