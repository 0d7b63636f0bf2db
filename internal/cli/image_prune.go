package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type imagePruneOptions struct {
	app  *app
	all  bool
	json bool
}

func newImagePrune(a *app) *cobra.Command {
	o := &imagePruneOptions{app: a}
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "remove what nobody needs",
		Long: `Remove layers that were downloaded, which images share and do not need any more, and images that have
neither a name nor an instance. With --all images go, too, that have a name and no instance; the default
image stays.`,
		Example: `  aegis image prune
  aegis image prune --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "images without an instance, too")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imagePruneOptions) run(ctx context.Context) error {
	out, err := o.app.client().PruneImages(ctx, o.all)
	if err != nil {
		return err
	}
	return o.app.printRemoved(out, o.json)
}
