package image

import (
	"encoding/json"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// maxLayers is more than any runtime can stack.
const maxLayers = 512

// checkConfig decodes the description of an image of that many layers, and says what is
// wrong with it.
func checkConfig(data []byte, layers int) (*v1.ConfigFile, error) {
	var c v1.ConfigFile
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, badImage("its description is not JSON: %v", err)
	}
	if layers > maxLayers {
		return nil, badImage("it has %d layers", layers)
	}
	if len(c.RootFS.DiffIDs) != layers {
		return nil, badImage("its description tells of %d layers, and it has %d", len(c.RootFS.DiffIDs), layers)
	}
	for _, id := range c.RootFS.DiffIDs {
		if !rootfs.IsDigest(id.String()) {
			return nil, badImage("%q is not the digest of a layer", id)
		}
	}
	if c.OS != "" && c.OS != guestOS || c.Architecture != "" && c.Architecture != runtime.GOARCH {
		return nil, wrongMachine(c.Platform().String())
	}
	total := 0
	for _, e := range c.Config.Env {
		total += len(e) + 1
	}
	if total > int(instance.MaxImageEnv) {
		return nil, badImage("its environment has %d bytes", total)
	}
	return &c, nil
}

// diffIDs returns the digests of the layers' contents.
func diffIDs(c *v1.ConfigFile) []string {
	ids := make([]string, 0, len(c.RootFS.DiffIDs))
	for _, id := range c.RootFS.DiffIDs {
		ids = append(ids, id.String())
	}
	return ids
}
