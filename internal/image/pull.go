package image

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// Pull gets the image that ref names, as the policy says, and tells how far it is.
func (s *Store) Pull(ctx context.Context, ref string, policy instance.Pull, tell func(api.ImageProgress)) (api.Image, error) {
	if policy == "" {
		policy = instance.PullAlways
	}
	if err := policy.Check(); err != nil {
		return api.Image{}, err
	}
	r, release, err := s.resolve(ctx, ref, policy, tell)
	if err != nil {
		return api.Image{}, err
	}
	defer release()
	return s.Inspect(ctx, r.ID)
}

// pull gets an image from its registry, unless what is here has the digest that the
// registry has under the name. The image it returns is pinned.
func (s *Store) pull(ctx context.Context, ref string, tell func(api.ImageProgress)) (record, func(), error) {
	parsed, err := parseRef(ref)
	if err != nil {
		return record{}, nil, err
	}
	tell(api.ImageProgress{Status: "resolving"})
	c, r, img, release, err := s.look(ctx, parsed)
	if err != nil || img == nil {
		return r, release, err
	}
	r, release, err = c.take(ctx, parsed, img, tell)
	if err != nil {
		return record{}, nil, err
	}
	s.tidy(ctx)
	return r, release, nil
}

// look asks the registry what a name means. Where that is here already, the record is
// set, and pinned; else the image is.
func (s *Store) look(ctx context.Context, ref name.Reference) (c *session, r record, img *remoteImage, release func(), err error) {
	// Protects from a registry that takes a request and says nothing.
	ctx, cancel := context.WithTimeoutCause(ctx, 2*s.stall,
		fault.New(fault.Timeout, "the registry %s does not answer", ref.Context().RegistryStr()).WithHint("try again later"))
	defer cancel()
	if c, err = s.connect(ctx, ref.Context()); err == nil {
		var here bool
		if r, release, here = c.current(ctx, ref); here {
			return c, r, nil, release, nil
		}
		img, err = c.fetch(ctx, ref)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return c, record{}, img, nil, err
}

// current returns the image that is here under the name, if the registry has the same.
func (c *session) current(ctx context.Context, ref name.Reference) (record, func(), bool) {
	t, err := c.store.loadTag(ref.Name())
	if err != nil || t.Manifest == "" {
		return record{}, nil, false
	}
	desc, err := remote.Head(ref, remote.WithContext(ctx), remote.WithTransport(c.http))
	if err != nil || desc.Digest.String() != t.Manifest {
		return record{}, nil, false // the real request tells what is wrong
	}
	r, release, err := c.store.hold(t.ID)
	return r, release, err == nil
}

// take gets the layers of an image and makes a root of them.
func (c *session) take(ctx context.Context, ref name.Reference, img *remoteImage, tell func(api.ImageProgress)) (record, func(), error) {
	s := c.store
	blobs, err := blobsOf(img)
	if err != nil {
		return record{}, nil, err
	}
	r := record{ID: digestOf(img.config), Stored: time.Now().UTC(), From: ref.Context().Name(), Config: img.config}
	workdir := img.file.Config.WorkingDir
	r.Root = rootDigest(diffIDs(img.file), workdir)
	release := s.pins.pin(r.ID)
	defer s.pins.pin(r.Root)()
	for _, b := range blobs {
		defer s.pins.pin(b.digest)()
		r.Layers = append(r.Layers, b.digest)
	}
	if _, err = rootfs.LoadRoot(s.home, r.Root); err != nil {
		err = c.build(ctx, blobs, workdir, tell)
	}
	if err == nil {
		err = s.add(r, ref.Name(), img.digest)
	}
	if err != nil {
		release()
		return record{}, nil, err
	}
	return r, release, nil
}

// blobsOf returns the layers of an image.
func blobsOf(img *remoteImage) ([]blob, error) {
	ids := diffIDs(img.file)
	var blobs []blob
	for i, d := range img.manifest.Layers {
		switch {
		case !rootfs.IsDigest(d.Digest.String()) || d.Size < 0:
			return nil, badImage("layer %d is %q of %d bytes", i, d.Digest, d.Size)
		case !d.MediaType.IsDistributable() && len(d.URLs) > 0:
			return nil, badImage("layer %d is kept elsewhere, at %s", i, d.URLs[0])
		}
		blobs = append(blobs, blob{digest: d.Digest.String(), size: d.Size, diffID: ids[i]})
	}
	return blobs, nil
}

// build fetches layers, several at a time, and flattens each as soon as those below it
// are done.
func (c *session) build(ctx context.Context, blobs []blob, workdir string, tell func(api.ImageProgress)) error {
	s := c.store
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	defer s.watch(blobs, tell)()
	layers := make([]layer, len(blobs))
	for i, b := range blobs {
		wg.Go(func() {
			if err := c.ensureBlob(ctx, b); err != nil {
				cancel(err) // nobody needs the others any more
			}
		})
		// The root may be built for several, of whom any may leave: each asks for itself.
		layers[i] = layer{diffID: b.diffID, open: func(ctx context.Context) (io.ReadCloser, error) {
			if err := c.ensureBlob(ctx, b); err != nil {
				return nil, err
			}
			return os.Open(s.blobFile(b.digest))
		}}
	}
	err := s.buildRoot(ctx, layers, workdir, func(layer) {})
	if why := context.Cause(ctx); why != nil && !errors.Is(why, context.Canceled) {
		return why // what the builder met was its consequence
	}
	return err
}
