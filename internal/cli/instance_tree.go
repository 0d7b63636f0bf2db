package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
)

type instanceTreeOptions struct {
	app  *app
	json bool
}

func newInstanceTree(a *app) *cobra.Command {
	o := &instanceTreeOptions{app: a}
	cmd := &cobra.Command{
		Use:   "tree [--json]",
		Short: "show which instances started which",
		Long: `Show instances with those that they have started over the Guest API below them. Children end with
their parent: they are deleted when it is deleted, and disabled when it is disabled.`,
		Example: `  aegis instance tree
  aegis instance tree --json | jq '.[].children'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// branch is an instance with its children.
type branch struct {
	api.Instance

	Children []*branch `json:"children"`
}

func (o *instanceTreeOptions) run(ctx context.Context) error {
	list, err := o.app.client().List(ctx, "")
	if err != nil {
		return err
	}
	roots := grow(list)
	if o.json {
		return o.app.printJSON(roots)
	}
	if len(roots) == 0 {
		o.app.say("no instances")
		return nil
	}
	var text strings.Builder
	for _, r := range roots {
		r.draw(&text, "", "", "")
	}
	return o.app.print("%s", text.String())
}

// grow makes the trees of a list, oldest first. One whose parent is not in the list, as that
// went meanwhile, is a root.
func grow(list []api.Instance) []*branch {
	byID := map[string]*branch{}
	slices.SortFunc(list, func(a, b api.Instance) int { return strings.Compare(a.ID, b.ID) })
	for _, i := range list {
		byID[i.ID] = &branch{Instance: i, Children: []*branch{}}
	}
	roots := []*branch{}
	for _, i := range list {
		if parent := byID[i.ParentID]; parent != nil {
			parent.Children = append(parent.Children, byID[i.ID])
		} else {
			roots = append(roots, byID[i.ID])
		}
	}
	return roots
}

// draw writes a branch: first stands before its own line, rest before those below.
func (b *branch) draw(to *strings.Builder, indent, first, rest string) {
	name := b.Handle
	if name != b.ID {
		name += " " + b.ID
	}
	fmt.Fprintf(to, "%s%s%s, %s: %s\n", indent, first, name, stateOf(b.Instance), shorten(commandText(b.Command), commandWidth))
	for i, c := range b.Children {
		if i == len(b.Children)-1 {
			c.draw(to, indent+rest, "└── ", "    ")
		} else {
			c.draw(to, indent+rest, "├── ", "│   ")
		}
	}
}
