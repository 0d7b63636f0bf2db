package cli

import "github.com/spf13/cobra"

func newImageInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NAME",
		Short: "show all about an image, as JSON",
		Long:  `Show all that is known of an image, by a name or the beginning of its id, as JSON.`,
		Example: `  aegis image inspect alpine:3.20
  aegis image inspect base | jq -r .id`,
		Args:              oneImage,
		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := a.client().Image(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.printJSON(image)
		},
	}
}
