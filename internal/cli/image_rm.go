package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/size"
)

type imageRmOptions struct {
	app   *app
	force bool
	json  bool
}

func newImageRm(a *app) *cobra.Command {
	o := &imageRmOptions{app: a}
	cmd := &cobra.Command{
		Use:   "rm [OPTIONS] NAME",
		Short: "remove an image",
		Long: `Take a name of an image away, or with an id all of its names. The image goes when nothing needs it any
more. One on which instances stand keeps its last name, unless --force takes it; the image goes with the
last of them.`,
		Example: `  aegis image rm alpine:3.20
  aegis image rm --force 4bcff63911fc`,
		Args:              oneImage,
		ValidArgsFunction: a.completeImage,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().BoolVar(&o.force, "force", false, "also take the last name of an image on which instances stand")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imageRmOptions) run(ctx context.Context, ref string) error {
	out, err := o.app.client().RemoveImage(ctx, ref, o.force)
	if err != nil {
		return err
	}
	return o.app.printRemoved(out, o.json)
}

func (a *app) printRemoved(out api.ImagesRemoved, asJSON bool) error {
	if asJSON {
		return a.printJSON(out)
	}
	for _, name := range out.Untagged {
		if err := a.print("Untagged: %s\n", name); err != nil {
			return err
		}
	}
	for _, id := range out.Deleted {
		if err := a.print("Deleted: %s\n", id); err != nil {
			return err
		}
	}
	return a.print("Freed: %v\n", size.Bytes(out.Freed))
}
