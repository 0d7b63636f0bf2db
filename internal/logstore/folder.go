package logstore

import (
	"os"
	"path/filepath"

	"github.com/xfeldman/aegisvm/internal/instance"
)

// Folder is the logs of all instances of a home. It implements instance.Logs.
type Folder struct {
	// Dir returns the folder of an instance; its log is the folder log in it.
	Dir    func(instance.ID) string
	Limits Limits
}

var _ instance.Logs = Folder{}

// Open opens the log of an instance. The instance's folder is made if need be.
func (f Folder) Open(id instance.ID) (instance.Log, error) {
	dir := f.Dir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l, err := Open(filepath.Join(dir, "log"), f.Limits)
	if err != nil {
		return nil, err
	}
	return output{l}, nil
}
