//go:build !linux

package ram

import "os"

// dataRuns returns where f may have data.
func dataRuns(_ *os.File, size int64) ([]extent64, error) {
	return []extent64{{0, size}}, nil
}
