package host

import "os"

// CloseAll closes what was only used, not written to. Nil files are fine.
func CloseAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
