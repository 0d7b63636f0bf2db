package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/size"
)

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image COMMAND",
		Short: "get and manage the images that VMs run",
		Long: `Get and manage images. An image is what a VM finds as its root: any container image (OCI, Docker), or
any tree of files down to one static binary. "aegis run --image NAME" uses one, and gets it from its
registry if it is not here; the names are Docker's, so are the credentials (docker login).

ENV, WORKDIR and USER of an image are defaults for the command; ENTRYPOINT, CMD, EXPOSE and VOLUME
are not used. An instance keeps the image that it was made of, whatever its name comes to mean. Without
--image it is the one that "aegis setup" made, called base, or the setting image.

An image is kept as one file, which all VMs share. Nothing of it is unpacked on this host.`,
		Example: `  aegis image pull alpine:3.20
  aegis image import app.tar mine:1          # from docker save, an OCI layout, a root file system
  aegis image import docker-daemon:mine:1    # from the Docker of this host
  aegis run --image mine:1 -- /app/serve
  aegis image commit box mine:2              # an instance, as it is now
  aegis image list`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newImagePull(a), newImageList(a), newImageInspect(a), newImageImport(a), newImageCommit(a), newImageRm(a), newImagePrune(a))
	return cmd
}

// oneImage takes the name of one image.
func oneImage(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0 || args[0] == "":
		return usage(cmd, "name an image")
	case len(args) > 1:
		return usage(cmd, "stray argument %q", args[1])
	}
	return nil
}

// completeImage completes the name of an image.
func (a *app) completeImage(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	all, err := a.client().Images(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, i := range all {
		names = append(names, i.Names...)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// pullPolicies are the values of --pull.
var pullPolicies = []string{"always", "missing", "never"}

// pullFlag is --pull.
type pullFlag string

func (f *pullFlag) Set(s string) error {
	if !slices.Contains(pullPolicies, s) {
		return fmt.Errorf("%q is not one of always, missing, never", s)
	}
	*f = pullFlag(s)
	return nil
}

func (f *pullFlag) String() string { return string(*f) }
func (*pullFlag) Type() string     { return "policy" }

// forDaemon is the policy of the request that comes after fetch: what was to be got is
// here then.
func (f *pullFlag) forDaemon() string {
	if *f == "always" {
		return "missing"
	}
	return string(*f)
}

// fetch gets the image of an instance that is to be made, and shows how far it is. The
// daemon is started if it does not run.
func (a *app) fetch(ctx context.Context, s *specFlags) error {
	if s.image == "" || s.pull == "never" {
		return nil
	}
	policy := string(s.pull)
	if policy == "" {
		policy = "missing"
	}
	_, err := a.pullImage(ctx, s.image, policy)
	if errors.Is(err, client.ErrNotRunning) {
		if _, err := a.launch(ctx, func() { a.say("starting aegisd") }); err != nil {
			return err
		}
		_, err = a.pullImage(ctx, s.image, policy)
	}
	return err
}

func (a *app) pullImage(ctx context.Context, ref, policy string) (api.Image, error) {
	p := a.progress(ref)
	defer p.end()
	return a.client().PullImage(ctx, ref, policy, p.show)
}

// progress shows on a terminal how far an image is.
type progress struct {
	app   *app
	what  string
	draws bool
	drawn bool
}

func (a *app) progress(what string) *progress {
	v, _ := a.lookup("NO_COLOR")
	return &progress{app: a, what: what, draws: v == "" && isTerminal(a.err)}
}

func (p *progress) show(i api.ImageProgress) {
	if !p.draws {
		return
	}
	p.drawn = true
	line := p.what + ": " + i.Status
	switch {
	case i.Status == "downloading" && i.Total > 0:
		line += fmt.Sprintf(" %v of %v, %d%%", size.Bytes(i.Current), size.Bytes(i.Total), i.Current*100/i.Total)
	case i.Total > 0:
		line += fmt.Sprintf(" %d of %d layers", i.Current, i.Total)
	}
	_, _ = fmt.Fprintf(p.app.err, "\r%s\x1b[K", line) // see say
}

// end takes the line away.
func (p *progress) end() {
	if p.drawn {
		_, _ = fmt.Fprint(p.app.err, "\r\x1b[K") // see say
	}
	p.drawn = false
}
