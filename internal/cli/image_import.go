package cli

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

type imageImportOptions struct {
	app  *app
	json bool
}

// dockerDaemon begins a source that is an image of the host's Docker.
const dockerDaemon = "docker-daemon"

func newImageImport(a *app) *cobra.Command {
	o := &imageImportOptions{app: a}
	cmd := &cobra.Command{
		Use:   "import [--json] FILE|DIR|docker-daemon:NAME|- [NAME]",
		Short: "take an image from a file, a folder or Docker",
		Long: `Take an image from a file or folder of this host, without any network. It may be

  - what "docker save" writes, or an OCI layout, as archive or folder; names in it are kept,
  - a root file system, as tar archive or folder, down to one static binary,
  - docker-daemon:NAME, an image of this host's Docker, by way of "docker save",
  - -, an archive on stdin.

Archives may be compressed. Owners, modes, links, devices and extended attributes are kept. In a folder,
what belongs to you belongs to root in the image.

NAME is what the image is called. Without it a root file system is called as its file is. The daemon is
started if it does not run.`,
		Example: `  aegis image import app.tar.gz mine:1
  aegis image import ./rootfs
  aegis image import docker-daemon:postgres:17
  docker save mine:1 | aegis image import -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 || args[0] == "" {
				return usage(cmd, "import takes a source and a name, not %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			return o.run(cmd.Context(), args[0], name)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func (o *imageImportOptions) run(ctx context.Context, source, name string) error {
	if _, err := o.app.launch(ctx, func() { o.app.say("starting aegisd") }); err != nil {
		return err
	}
	images, err := o.take(ctx, source, name)
	if err != nil {
		return err
	}
	if o.json {
		return o.app.printJSON(images)
	}
	for _, i := range images {
		if err := o.app.print("Image imported: %s\nID: %s\n", strings.Join(i.Names, ", "), i.ID); err != nil {
			return err
		}
	}
	return nil
}

func (o *imageImportOptions) take(ctx context.Context, source, name string) ([]api.Image, error) {
	p := o.app.progress(source)
	defer p.end()
	if ref, ok := strings.CutPrefix(source, dockerDaemon+":"); ok {
		return o.fromDocker(ctx, ref, name, p)
	}
	switch source {
	case dockerDaemon:
		return nil, fault.New(fault.Invalid, "name an image of Docker").WithHint("such as: docker-daemon:alpine:3.20")
	case "-":
		if isTerminal(o.app.in) {
			return nil, fault.New(fault.Invalid, "stdin is a terminal, not an archive").
				WithHint("such as: docker save mine:1 | aegis image import -")
		}
		return o.app.client().SendImage(ctx, o.app.in, name, p.show)
	}
	path, err := filepath.Abs(source)
	if err != nil {
		return nil, err
	}
	return o.app.client().ImportImage(ctx, path, name, p.show)
}

// fromDocker takes what `docker save` writes.
func (o *imageImportOptions) fromDocker(ctx context.Context, ref, name string, p *progress) ([]api.Image, error) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "there is no docker on this host").By(fault.Host).
			WithHint("take an archive instead: aegis image import FILE")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said strings.Builder
	cmd := exec.CommandContext(ctx, docker, "save", "--", ref)
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "run docker").By(fault.Host)
	}
	images, err := o.app.client().SendImage(ctx, &saved{out: out, wait: cmd.Wait, said: &said}, name, p.show)
	if err != nil {
		cancel() // it writes to nobody
		_ = cmd.Wait()
	}
	return images, err
}

// saved is the output of docker. It ends only if docker succeeded.
type saved struct {
	out  io.Reader
	wait func() error
	said *strings.Builder
}

// Read implements io.Reader.
func (s *saved) Read(b []byte) (int, error) {
	n, err := s.out.Read(b)
	if errors.Is(err, io.EOF) {
		if failed := s.wait(); failed != nil {
			return n, fault.Wrap(fault.Unavailable, failed, "docker save: %s", strings.TrimSpace(s.said.String())).
				WithHint("see: docker image ls")
		}
	}
	return n, err
}
