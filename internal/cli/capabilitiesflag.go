package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// maxCapabilities bounds the file of --capabilities.
const maxCapabilities = 1 << 20

// capabilitiesFlag is --capabilities: the rights in a file.
type capabilitiesFlag struct {
	path   string
	rights *api.Capabilities
}

// Set implements pflag.Value. A key that nobody knows is an error: a right that is misspelt
// would be missed much later.
func (f *capabilitiesFlag) Set(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(file, maxCapabilities+1))
	if err != nil {
		return err
	}
	if len(b) > maxCapabilities {
		return fmt.Errorf("%s is too large", path)
	}
	rights := &api.Capabilities{}
	if err := strictjson.Decode(b, rights); err != nil {
		return fmt.Errorf("%s: %w; docs/GUEST_API.md has the rights", path, strictjson.Explain(b, err))
	}
	f.path, f.rights = path, rights
	return nil
}

func (f *capabilitiesFlag) String() string { return f.path }
func (*capabilitiesFlag) Type() string     { return "file" }
