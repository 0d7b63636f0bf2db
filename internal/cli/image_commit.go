package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type imageCommitOptions struct {
	app  *app
	json bool
}

func newImageCommit(a *app) *cobra.Command {
	o := &imageCommitOptions{app: a}
	cmd := &cobra.Command{
		Use:   "commit [--json] X NAME",
		Short: "make an image of an instance",
		Long: `Make an image of an instance: of its image and all that has changed on its disk since. The workspace,
other mounts and memory are not part of it. The instance is woken, which starts its command if it is
stopped; its programs stand still while it is read.

The image has ENV, WORKDIR and USER of the one it is made on.`,
		Example: `  aegis exec box -- apt-get install -y ripgrep
  aegis image commit box tools:1
  aegis run --image tools:1 -- rg --version`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(cmd, "commit takes an instance and a name, not %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imageCommitOptions) run(ctx context.Context, ref, name string) error {
	image, err := o.app.client().CommitImage(ctx, ref, name)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(image)
	}
	return o.app.print("Image made: %s\nID: %s\n", name, image.ID)
}
