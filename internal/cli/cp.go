package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/tree"
)

type cpOptions struct {
	app     *app
	archive bool
}

func newCp(a *app) *cobra.Command {
	o := &cpOptions{app: a}
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] SRC DST",
		Short: "copy files into an instance or out of it",
		Long: `Copy a file or a tree between this host and an instance. One of SRC and DST is NAME:PATH, where NAME
is the instance's name or id; the other is a path of this host. The instance is woken, and stays
awake until all is copied. It needs no tool of its image.

A SRC that is copied to a folder that exists goes into it; to a DST that does not exist, it becomes
that. SRC/. is what is in a folder. A DST that ends in / must be a folder, unless SRC is one. With - as
SRC a tar archive is read from stdin and unpacked in a folder of the instance; with - as DST one is
written to stdout.

Modes, modification times, symlinks and hard links are kept; devices, pipes and sockets are left out.
Files in the instance belong to root, files on this host to you and without set-user-ID and
set-group-ID bits, unless -a keeps their owners. What stands in the way of a file is replaced; folders
that exist keep their modes. An interrupted copy leaves whole files only; the rest of a tree is
missing.`,
		Example: `  aegis cp model.bin box:/srv/          # a file into a folder
  aegis cp ./site box:/var/www          # a tree that becomes /var/www, or goes into it
  aegis cp box:/var/log/. ./logs        # what is in a folder
  aegis cp -a box:/home - | gzip > home.tar.gz
  tar c src | aegis cp - box:/work`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usage(cmd, "cp takes a source and a destination, not %d arguments", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0], args[1]) },
	}
	cmd.Flags().BoolVarP(&o.archive, "archive", "a", false, "keep numeric owners, and set-user-ID and set-group-ID bits with them")
	return cmd
}

// place is one side of a copy.
type place struct {
	ref  string // of the instance; "" is this host
	path string
}

// instanceName is what may stand before the colon.
var instanceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// parsePlace reads NAME:PATH or a path of this host. One with a colon in it is told
// from the first by a slash before the colon, as in ./a:b.
func parsePlace(s string) (place, error) {
	name, path, ok := strings.Cut(s, ":")
	if !ok || !instanceName.MatchString(name) {
		if s == "" {
			return place{}, fault.New(fault.Invalid, "a path is empty")
		}
		return place{path: s}, nil
	}
	if path == "" {
		return place{}, fault.New(fault.Invalid, "%s names no path of the instance", s).
			WithHint("such as %s:/tmp; a file of this host is ./%s", name, s)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return place{ref: name, path: path}, nil
}

func (o *cpOptions) run(ctx context.Context, from, to string) error {
	src, err := parsePlace(from)
	if err != nil {
		return err
	}
	dst, err := parsePlace(to)
	if err != nil {
		return err
	}
	switch {
	case src.ref == "" && dst.ref == "":
		return fault.New(fault.Invalid, "neither %q nor %q is in an instance", from, to).
			WithHint("put NAME: before one of them, as in: aegis cp %s box:%s", from, to)
	case src.ref != "" && dst.ref != "":
		return fault.New(fault.Invalid, "both %q and %q are in instances", from, to).
			WithHint("copy to this host first, or: aegis cp %s - | aegis cp - %s", from, to)
	case src.ref != "" && dst.path == "-":
		return o.toStdout(ctx, src)
	case src.ref != "":
		return o.fromInstance(ctx, src, dst.path)
	case src.path == "-":
		return o.fromStdin(ctx, dst)
	}
	return o.toInstance(ctx, src.path, dst)
}

// toInstance packs a file or tree of this host for an instance.
func (o *cpOptions) toInstance(ctx context.Context, from string, dst place) error {
	src, err := tree.OpenSource(from)
	if err != nil {
		return localFault(err, fault.Invalid)
	}
	defer func() { _ = src.Close() }() // only read
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		buf := bufio.NewWriterSize(w, 64<<10)
		err := src.Pack(buf, o.note)
		if err == nil {
			err = buf.Flush()
		}
		_ = w.CloseWithError(err) // never fails; nil is the end
	}()
	err = o.send(ctx, dst, client.CopyOptions{Owners: o.archive}, r)
	_ = r.Close() // ends the packing, if it has not ended
	<-packed
	return localFault(err, fault.Unavailable)
}

func (o *cpOptions) fromStdin(ctx context.Context, dst place) error {
	if isTerminal(o.app.in) {
		return fault.New(fault.Invalid, "stdin is a terminal, not a tar archive").
			WithHint("such as: tar c DIR | aegis cp - %s:%s", dst.ref, dst.path)
	}
	return o.send(ctx, dst, client.CopyOptions{Owners: o.archive, Extract: true}, o.app.in)
}

func (o *cpOptions) send(ctx context.Context, dst place, opts client.CopyOptions, r io.Reader) error {
	m := o.app.meter()
	defer m.stop()
	notes, err := o.app.client().CopyTo(ctx, dst.ref, dst.path, opts, m.reader(r))
	m.stop()
	o.tell(notes)
	return err
}

// fromInstance unpacks files of an instance on this host. The archive is an enemy's:
// package tree keeps it inside of the target.
func (o *cpOptions) fromInstance(ctx context.Context, src place, to string) error {
	dst, err := tree.OpenTarget(to)
	if err != nil {
		return localFault(err, fault.Invalid)
	}
	defer func() { _ = dst.Close() }() // only read
	in, err := o.app.client().CopyFrom(ctx, src.ref, src.path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	m := o.app.meter()
	defer m.stop()
	err = dst.Unpack(m.reader(in), tree.Options{Owners: o.archive, Note: o.note})
	m.stop()
	o.tell(in.Notes())
	return localFault(err, fault.Denied)
}

func (o *cpOptions) toStdout(ctx context.Context, src place) error {
	if isTerminal(o.app.out) {
		return fault.New(fault.Invalid, "stdout is a terminal, and the archive binary").
			WithHint("send it somewhere, such as: aegis cp %s:%s - | tar t", src.ref, src.path)
	}
	in, err := o.app.client().CopyFrom(ctx, src.ref, src.path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	_, err = io.Copy(stdout{o.app.out}, in)
	o.tell(in.Notes())
	return err
}

// stdout makes errors of writing what they are to the exit status.
type stdout struct{ f *os.File }

// Write implements io.Writer.
func (s stdout) Write(b []byte) (int, error) {
	n, err := s.f.Write(b)
	if err != nil {
		err = &client.OutputError{Stream: "stdout", Err: err}
	}
	return n, err
}

func (o *cpOptions) note(line string) { o.app.say("%s", line) }

func (o *cpOptions) tell(notes []string) {
	for _, n := range notes {
		o.note(n)
	}
}

// localFault says what an error of this host's files is. Refusals are of kind refusal.
func localFault(err error, refusal fault.Kind) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*client.OutputError](err); ok {
		return err
	}
	var kind fault.Kind
	_, refused := errors.AsType[*tree.Error](err)
	switch {
	case refused:
		kind = refusal
	case errors.Is(err, fs.ErrNotExist):
		kind = fault.NotFound
	case errors.Is(err, fs.ErrPermission):
		kind = fault.Denied
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Exhausted, err, "copy").By(fault.Host).WithHint("free some space on this host")
	default:
		return err
	}
	return fault.Wrap(kind, err, "copy")
}
