package ram

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// dataRuns returns where f has data: the rest was never written.
func dataRuns(f *os.File, size int64) ([]run, error) {
	var runs []run
	for at := int64(0); at < size; {
		begin, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		end, err := f.Seek(begin, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		end = min(end, size)
		runs = append(runs, run{begin, end - begin})
		at = end
	}
	return runs, nil
}
