package cli

import (
	"context"

	"github.com/spf13/cobra"
)

type imagePullOptions struct {
	app  *app
	pull pullFlag
	warm bool
	json bool
}

func newImagePull(a *app) *cobra.Command {
	o := &imagePullOptions{app: a, pull: "always"}
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME",
		Short: "get an image from its registry",
		Long: `Get an image from its registry. What is here already is not fetched again: a name is compared by the
digest that the registry has for it, and layers are shared by images. A pull that was cut off goes on
where it stopped. The daemon is started if it does not run.

With --warm the first instance of the image starts as fast as later ones: the machine that they begin as is
booted and saved now.

Credentials are those of Docker: see "docker login".`,
		Example: `  aegis image pull alpine:3.20
  aegis image pull ghcr.io/me/app:2
  aegis image pull --pull missing --warm python:3.13-slim`,
		Args:              oneImage,
		ValidArgsFunction: a.completeImage,
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().Var(&o.pull, "pull", "ask the registry: `always|missing|never`")
	cmd.Flags().BoolVar(&o.warm, "warm", false, "prepare starts of its instances too")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imagePullOptions) run(ctx context.Context, ref string) error {
	if _, err := o.app.launch(ctx, func() { o.app.say("starting aegisd") }); err != nil {
		return err
	}
	image, err := o.app.pullImage(ctx, ref, string(o.pull))
	if err != nil {
		return err
	}
	if o.warm {
		if _, err := o.app.client().WarmImage(ctx, ref); err != nil {
			return err
		}
	}
	if o.json {
		return o.app.printJSON(image)
	}
	return o.app.print("Image pulled: %s\nID: %s\n", ref, image.ID)
}
