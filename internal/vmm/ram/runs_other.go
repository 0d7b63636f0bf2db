//go:build !linux

package ram

import "os"

// dataRuns returns where f may have data.
func dataRuns(_ *os.File, size int64) ([]run, error) {
	return []run{{0, size}}, nil
}
