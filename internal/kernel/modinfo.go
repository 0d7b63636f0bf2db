package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxModule bounds one uncompressed module.
const maxModule = 64 << 20

// moduleInfo is what a module says of itself in its .modinfo section.
type moduleInfo struct {
	depends []string // modules whose symbols it uses
	pre     []string // modules or aliases to load before it, if they exist
}

// readModule returns the uncompressed content of a module's file.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(f, 0)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err == nil && len(data) > maxModule {
		err = errors.New("too large")
	}
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", path, err)
	}
	return data, nil
}

// parseModule reads the .modinfo section: strings of the form key=value, each
// followed by one or more NULs.
func parseModule(data []byte) (moduleInfo, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return moduleInfo{}, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return moduleInfo{}, errors.New("no .modinfo section")
	}
	text, err := section.Data()
	if err != nil {
		return moduleInfo{}, err
	}
	var info moduleInfo
	for item := range strings.SplitSeq(string(text), "\x00") {
		switch key, value, _ := strings.Cut(item, "="); key {
		case "depends":
			info.depends = append(info.depends, strings.FieldsFunc(value, func(r rune) bool { return r == ',' })...)
		case "softdep":
			info.pre = append(info.pre, softPre(value)...)
		}
	}
	return info, nil
}

// softPre returns the names behind "pre:" in a soft dependency, which reads
// "pre: a b post: c d".
func softPre(value string) []string {
	var names []string
	pre := false
	for word := range strings.FieldsSeq(value) {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			names = append(names, word)
		}
	}
	return names
}
