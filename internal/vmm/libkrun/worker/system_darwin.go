package worker

import "path/filepath"

func confineMore() {}

// loaded returns the file of a library that has been loaded. Only a path tells.
func loaded(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return ""
}
