package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// found is an image in an archive or folder.
type found struct {
	names  []string
	config []byte
	layers []string // names of files
}

// importFiles takes the images of an archive or folder. name is for the only one.
func (s *Store) importFiles(ctx context.Context, from files, name, where string, tell func(api.ImageProgress)) ([]api.Image, error) {
	list, err := savedImages(from)
	if errors.Is(err, fs.ErrNotExist) {
		list, err = layoutImages(from)
	}
	if err != nil {
		return nil, badArchive(where, err)
	}
	if name != "" {
		if len(list) != 1 {
			return nil, fault.New(fault.Invalid, "there are %d images in %s, and one name for them", len(list), where).
				WithHint("import them without a name: they have names of their own")
		}
		list[0].names = []string{name}
	}
	out := []api.Image{}
	for _, x := range list {
		r, err := s.importOne(ctx, from, x, where, tell)
		if err != nil {
			return nil, badArchive(where, err)
		}
		image, err := s.Inspect(ctx, r.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, image)
	}
	s.tidy(ctx)
	return out, nil
}

func (s *Store) importOne(ctx context.Context, from files, x found, where string, tell func(api.ImageProgress)) (record, error) {
	if len(x.names) == 0 {
		return record{}, fault.New(fault.Invalid, "the image has no name").WithHint("give it one, as in: aegis image import FILE mine:1")
	}
	var names []string
	for _, n := range x.names {
		ref, err := parseName(n)
		if err != nil {
			return record{}, err
		}
		names = append(names, ref.Name())
	}
	c, err := checkConfig(x.config, len(x.layers))
	if err != nil {
		return record{}, err
	}
	var layers []layer
	for i, id := range diffIDs(c) {
		layers = append(layers, layer{diffID: id, open: func(context.Context) (io.ReadCloser, error) { return from.open(x.layers[i]) }})
	}
	r := record{ID: digestOf(x.config), Stored: time.Now().UTC(), From: where, Config: x.config}
	r.Root = rootDigest(diffIDs(c), c.Config.WorkingDir)
	defer s.pins.pin(r.ID)()
	defer s.pins.pin(r.Root)()
	n := 0
	step := func() { tell(api.ImageProgress{Status: "building", Current: int64(n), Total: int64(len(layers))}) }
	step()
	if err := s.buildRoot(ctx, layers, c.Config.WorkingDir, func(layer) { n++; step() }); err != nil {
		return record{}, err
	}
	for _, full := range names {
		if err := s.add(r, full, ""); err != nil {
			return record{}, err
		}
	}
	return r, nil
}

// savedImages reads what `docker save` writes, or fails with fs.ErrNotExist.
func savedImages(from files) ([]found, error) {
	data, err := readDocument(from, "manifest.json")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, badImage("manifest.json: %v", err)
	}
	if len(list) == 0 {
		return nil, badImage("manifest.json names none")
	}
	var out []found
	for _, x := range list {
		config, err := readDocument(from, x.Config)
		if err != nil {
			return nil, badImage("its description: %v", err)
		}
		out = append(out, found{names: x.RepoTags, config: config, layers: x.Layers})
	}
	return out, nil
}

// The annotations by which a layout names its images.
const (
	fullNameAnnotation = "io.containerd.image.name"
	refNameAnnotation  = "org.opencontainers.image.ref.name"
)

// layoutImages reads an OCI layout.
func layoutImages(from files) ([]found, error) {
	data, err := readDocument(from, "index.json")
	if err != nil {
		return nil, badImage("it has neither manifest.json nor index.json")
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, badImage("index.json: %v", err)
	}
	var out []found
	var other []string
	for _, d := range index.Manifests {
		name := d.Annotations[fullNameAnnotation]
		if name == "" {
			name = d.Annotations[refNameAnnotation]
		}
		if p := d.Platform; p != nil && (p.OS != guestOS || p.Architecture != runtime.GOARCH) {
			other = append(other, p.String())
			continue
		}
		x, err := layoutImage(from, d, 0)
		if err != nil {
			return nil, err
		}
		if name != "" {
			x.names = []string{name}
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, wrongMachine(fmt.Sprint(other))
	}
	return out, nil
}

// maxIndexes bounds indexes within indexes.
const maxIndexes = 3

// layoutImage reads the image that a descriptor names, through indexes.
func layoutImage(from files, d v1.Descriptor, depth int) (found, error) {
	data, err := readBlob(from, d.Digest)
	if err != nil {
		return found{}, err
	}
	if d.MediaType.IsIndex() {
		var index v1.IndexManifest
		if err := json.Unmarshal(data, &index); err != nil || depth == maxIndexes {
			return found{}, badImage("index %s: %v", d.Digest, err)
		}
		want, err := pick(index.Manifests)
		if err != nil {
			return found{}, err
		}
		return layoutImage(from, want, depth+1)
	}
	var m v1.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return found{}, badImage("manifest %s: %v", d.Digest, err)
	}
	x := found{}
	if x.config, err = readBlob(from, m.Config.Digest); err != nil {
		return found{}, err
	}
	for _, l := range m.Layers {
		name, err := blobName(l.Digest)
		if err != nil {
			return found{}, err
		}
		x.layers = append(x.layers, name)
	}
	return x, nil
}

func blobName(h v1.Hash) (string, error) {
	if !rootfs.IsDigest(h.String()) {
		return "", badImage("%q is no digest", h)
	}
	return "blobs/sha256/" + h.Hex, nil
}

// readBlob reads a document by its digest.
func readBlob(from files, h v1.Hash) ([]byte, error) {
	name, err := blobName(h)
	if err != nil {
		return nil, err
	}
	data, err := readDocument(from, name)
	if err != nil {
		return nil, err
	}
	if got := digestOf(data); got != h.String() {
		return nil, badImage("%s has the digest %s", name, got)
	}
	return data, nil
}
