package image

import (
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// DefaultName is the name of the image that set-up made.
const DefaultName = rootfs.BaseImage

// parseRef reads a reference as Docker does: alpine is docker.io/library/alpine:latest.
func parseRef(s string) (name.Reference, error) {
	ref, err := name.ParseReference(s, name.WeakValidation)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%q is not the name of an image", s).
			WithHint("a name is NAME[:TAG], HOST/NAME[:TAG] or one of these with @sha256:..., all in lower case")
	}
	return ref, nil
}

// parseName is parseRef for a name that is to be given to an image.
func parseName(s string) (name.Reference, error) {
	if s == DefaultName {
		return nil, fault.New(fault.Conflict, "%q is the image that set-up made", s).WithHint("choose another name")
	}
	ref, err := parseRef(s)
	if err != nil {
		return nil, err
	}
	if _, ok := ref.(name.Digest); ok {
		return nil, fault.New(fault.Invalid, "%q names an image by its digest, which cannot be chosen", s).
			WithHint("such as: mine:1")
	}
	return ref, nil
}

// familiar returns a normalised name as people write it.
func familiar(full string) string {
	const hub = "index.docker.io/"
	if rest, ok := strings.CutPrefix(full, hub); ok {
		return strings.TrimPrefix(rest, "library/")
	}
	return full
}

// idForm is what may be the beginning of an image's id.
var idForm = regexp.MustCompile(`^(sha256:)?([0-9a-f]{6,64})$`)

// idPrefix returns the hex digits of what may be an id, or "".
func idPrefix(s string) string {
	if m := idForm.FindStringSubmatch(s); m != nil {
		return m[2]
	}
	return ""
}
