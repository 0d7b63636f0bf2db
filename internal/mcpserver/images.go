package mcpserver

import (
	"context"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/xfeldman/aegisvm/api"
)

type imageEntry struct {
	Names        []string `json:"names"`
	ID           string   `json:"id"`
	Default      bool     `json:"default,omitempty" jsonschema:"what instances have that name no image"`
	Size         int64    `json:"size" jsonschema:"bytes on the user's machine"`
	Architecture string   `json:"architecture"`
	UsedBy       []string `json:"used_by,omitempty" jsonschema:"handles of instances"`
}

func imageOf(i api.Image) imageEntry {
	return imageEntry{append([]string{}, i.Names...), i.ID, i.Default, i.Size, i.Architecture, i.UsedBy}
}

type imagesOutput struct {
	Images []imageEntry `json:"images"`
}

type pullInput struct {
	Image ref    `json:"image" jsonschema:"name of an OCI image, such as alpine:3.20 or ghcr.io/owner/name:tag"`
	Pull  string `json:"pull,omitempty" jsonschema:"always asks the registry for a newer one; missing does not if there is one of that name"`
}

func (s *Server) addImages() {
	add(s, tool[struct{}, imagesOutput]{
		name: "image_list", title: "List images", effect: reads,
		about: "List the OCI images that are stored on the user's machine, for image of instance_start.",
		do: func(ctx context.Context, _ *call, _ struct{}) (imagesOutput, error) {
			all, err := s.api.Images(ctx)
			out := imagesOutput{Images: []imageEntry{}}
			for _, i := range all {
				out.Images = append(out.Images, imageOf(i))
			}
			return out, err
		},
	})
	add(s, tool[pullInput, imageEntry]{
		name: "image_pull", title: "Pull an image", effect: sets, open: true,
		about: "Get an OCI image from its registry, with the user's Docker credentials. instance_start does so by itself for an image that is missing; " +
			"this is for a newer one, or to have it in advance.",
		refine: func(in *jsonschema.Schema) {
			enum(in, "pull", "always", "missing")
			preset(in, "pull", `"always"`)
		},
		do: func(ctx context.Context, c *call, in pullInput) (imageEntry, error) {
			i, err := s.api.PullImage(ctx, string(in.Image), in.Pull, c.pulling(string(in.Image)))
			return imageOf(i), err
		},
	})
}
