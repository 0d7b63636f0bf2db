package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// session is a conversation with a registry about one repository.
type session struct {
	store *Store
	repo  name.Repository
	http  http.RoundTripper // with the user's credentials
}

// connect begins a conversation, with what the user's Docker configuration has for the
// registry.
func (s *Store) connect(ctx context.Context, repo name.Repository) (*session, error) {
	auth, err := s.keychain.Resolve(repo)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "credentials for %s", repo.RegistryStr()).By(fault.Host).
			WithHint("look at ~/.docker/config.json, and at the credential helper it names")
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, bounded{s.transport}, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, s.registryFault(repo.String(), err)
	}
	return &session{store: s, repo: repo, http: t}, nil
}

// maxDocument bounds manifests, descriptions and whatever else of a registry is kept in
// memory.
const maxDocument = 8 << 20

// bounded bounds what a registry can make us keep: all but layers.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil && r.Context().Value(layerKey{}) == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)
	}
	return resp, err
}

// layerKey marks the contexts of requests for layers, redirected ones among them.
type layerKey struct{}

// remoteImage is what a registry has under a name, for this machine.
type remoteImage struct {
	digest   string // what the name means: of an index or a manifest
	config   []byte
	manifest *v1.Manifest
	file     *v1.ConfigFile
}

// fetch gets the documents of an image, and none of its layers.
func (c *session) fetch(ctx context.Context, ref name.Reference) (*remoteImage, error) {
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithTransport(c.http))
	if err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	img, err := c.choose(ctx, ref, desc)
	if err != nil {
		return nil, err
	}
	out := &remoteImage{digest: desc.Digest.String()}
	if out.manifest, err = img.Manifest(); err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	if out.manifest.Config.Size > maxDocument {
		return nil, badImage("its description has %d bytes", out.manifest.Config.Size)
	}
	if out.config, err = img.RawConfigFile(); err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	out.file, err = checkConfig(out.config, len(out.manifest.Layers))
	return out, err
}

// choose picks the image for this machine.
func (c *session) choose(ctx context.Context, ref name.Reference, desc *remote.Descriptor) (v1.Image, error) {
	switch {
	case desc.MediaType.IsSchema1():
		return nil, badImage("it has the manifest of Docker before 2016")
	case !desc.MediaType.IsIndex():
		img, err := desc.Image()
		if err != nil {
			return nil, c.store.registryFault(familiar(ref.Name()), err)
		}
		return img, nil
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	want, err := pick(list.Manifests)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(c.repo.Digest(want.Digest.String()), remote.WithContext(ctx), remote.WithTransport(c.http))
	if err != nil {
		return nil, c.store.registryFault(familiar(ref.Name()), err)
	}
	return img, nil
}

// pick chooses the manifest for this machine from an index.
func pick(list []v1.Descriptor) (v1.Descriptor, error) {
	var have []string
	best, found := v1.Descriptor{}, false
	for _, d := range list {
		p := d.Platform
		if p == nil || p.OS == "unknown" || !d.MediaType.IsImage() {
			continue // attestations and the like
		}
		have = append(have, p.String())
		if p.OS != guestOS || p.Architecture != runtime.GOARCH {
			continue
		}
		if !found || better(*p, *best.Platform) {
			best, found = d, true
		}
	}
	if found {
		return best, nil
	}
	slices.Sort(have)
	return v1.Descriptor{}, wrongMachine(strings.Join(have, ", "))
}

// better prefers the variant that every machine of an architecture has.
func better(a, b v1.Platform) bool {
	plain := func(p v1.Platform) bool { return p.Variant == "" || p.Architecture == "arm64" && p.Variant == "v8" }
	return plain(a) && !plain(b)
}

func wrongMachine(have string) error {
	if have == "" {
		have = "none that it tells"
	}
	return fault.New(fault.Invalid, "the image is not for %s/%s; it has: %s", guestOS, runtime.GOARCH, have).By(fault.Image).
		WithHint("choose an image, or a tag of it, for %s/%s", guestOS, runtime.GOARCH)
}

func badImage(format string, args ...any) error {
	return fault.New(fault.Invalid, "bad image: "+format, args...).By(fault.Image)
}

// registryFault explains what a registry, or the way to it, has answered.
func (s *Store) registryFault(what string, err error) error {
	if t, ok := errors.AsType[*transport.Error](err); ok {
		switch t.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fault.Wrap(fault.Denied, err, "pull %s", what).
				WithHint("check the name; a private image needs: docker login REGISTRY")
		case http.StatusNotFound:
			return fault.Wrap(fault.NotFound, err, "pull %s", what).WithHint("check name and tag")
		case http.StatusTooManyRequests:
			return fault.Wrap(fault.Unavailable, err, "pull %s", what).WithHint("try later, or log in: docker login")
		}
		return fault.Wrap(fault.Unavailable, err, "pull %s", what).WithHint("try again; the registry may be overloaded")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("pull %s: %w", what, err)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return badImage("a document of over %v", size.Bytes(maxDocument))
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return fmt.Errorf("pull %s: %w", what, err)
	}
	return fault.Wrap(fault.Unavailable, err, "pull %s", what).
		WithHint("is the registry reachable from this host? An image can come from a file, too: aegis image import FILE")
}
