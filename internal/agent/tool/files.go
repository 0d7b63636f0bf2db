package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
)

// The limits of files.
const (
	maxRead     = 4 << 20 // bytes of a file that is read or edited
	defaultRead = 1500    // lines
	maxImage    = 5 << 20 // bytes of a picture that is shown to the model
)

// Files returns the tools that read and write files; relative paths are below dir.
// Pictures that are read are kept in blobs.
func Files(dir string, blobs *blob.Store) []Tool {
	f := &files{dir: dir, blobs: blobs}
	path := field("string", "the file; a relative path is below "+dir)
	return []Tool{
		{
			Name:        "read_file",
			Description: "Read a text file, or look at a picture (png, jpeg, gif, webp). Long files come in parts.",
			Schema: object("path*", path, "offset", field("integer", "the first line, from 1"),
				"limit", field("integer", fmt.Sprintf("how many lines; default %d", defaultRead))),
			Run: f.read,
		},
		{
			Name:        "write_file",
			Description: "Write a file, replacing it if there is one. Folders are made. For small changes use edit_file.",
			Schema:      object("path*", path, "content*", field("string", "all of the new content")),
			Run:         f.write,
		},
		{
			Name:        "edit_file",
			Description: "Replace a piece of a text file. old must be exactly what is in the file, with enough around it to be there only once.",
			Schema: object("path*", path, "old*", field("string", "what is replaced"), "new*", field("string", "what comes in its place"),
				"all", field("boolean", "replace it wherever it is")),
			Run: f.edit,
		},
	}
}

type files struct {
	dir   string
	blobs *blob.Store
}

type readArgs struct {
	Path   string `json:"path"`
	Offset int    `json:"offset"`
	Limit  int    `json:"limit"`
}

func (f *files) read(_ context.Context, c Call) (Result, error) {
	args, err := read[readArgs](c)
	if err != nil {
		return Result{}, err
	}
	path := resolve(f.dir, args.Path)
	data, more, err := load(path)
	if err != nil {
		return Result{}, err
	}
	if media := http.DetectContentType(data); blob.IsPicture(media) {
		return f.picture(path, data, more)
	}
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data[:len(data)-tornRune(data)]) {
		return Result{}, fmt.Errorf("%s is not text; look at it with bash: file, xxd", path)
	}
	lines := strings.SplitAfter(string(data), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	from := min(max(args.Offset-1, 0), len(lines))
	limit := args.Limit
	if limit <= 0 {
		limit = defaultRead
	}
	to := min(from+limit, len(lines))
	out := strings.Join(lines[from:to], "")
	if len(out) > maxText {
		for n, size := from, 0; n < to; n++ {
			if size += len(lines[n]); size > maxText*9/10 {
				to = max(n, from+1)
				break
			}
		}
		out = strings.Join(lines[from:to], "")
	}
	if from > 0 || to < len(lines) || more {
		out = strings.TrimSuffix(out, "\n") + fmt.Sprintf("\n[lines %d to %d of %d%s]", from+1, to, len(lines), map[bool]string{true: " and more"}[more])
	}
	if out == "" {
		out = "(the file is empty)"
	}
	return Result{Text: out}, nil
}

// tornRune is how many bytes at the end of data may be the beginning of a rune.
func tornRune(data []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(data); n++ {
		if c := data[len(data)-n]; utf8.RuneStart(c) {
			if !utf8.FullRune(data[len(data)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

func (f *files) picture(path string, data []byte, more bool) (Result, error) {
	if more || len(data) > maxImage {
		return Result{}, fmt.Errorf("%s is a picture of more than %d bytes; make it smaller first", path, maxImage)
	}
	p, err := f.blobs.Put(data)
	if err != nil {
		return Result{}, err
	}
	r := text("the picture %s (%s, %d bytes)", path, p.MediaType, p.Size)
	r.Images = append(r.Images, p)
	return r, nil
}

// load returns the beginning of a file, and whether there is more.
func load(path string) ([]byte, bool, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("there is no file %s", path)
	case err != nil:
		return nil, false, err
	case fi.IsDir():
		return nil, false, fmt.Errorf("%s is a folder; use list_files", path)
	case !fi.Mode().IsRegular():
		return nil, false, fmt.Errorf("%s is no regular file; use bash", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(file, maxRead+1))
	if err != nil {
		return nil, false, err
	}
	if len(data) > maxRead {
		return data[:maxRead], true, nil
	}
	return data, false, nil
}

type writeArgs struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

func (f *files) write(_ context.Context, c Call) (Result, error) {
	args, err := read[writeArgs](c)
	if err != nil {
		return Result{}, err
	}
	if args.Path == "" {
		return Result{}, errors.New("path is empty")
	}
	path := resolve(f.dir, args.Path)
	before, more, err := load(path)
	fresh := false
	if _, statErr := os.Stat(path); errors.Is(statErr, fs.ErrNotExist) {
		fresh, err = true, nil
	}
	if err != nil {
		return Result{}, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // other users of the machine may read it
		return Result{}, err
	}
	if err := replace(path, []byte(args.Content)); err != nil {
		return Result{}, err
	}
	lines := strings.Count(args.Content, "\n")
	if fresh || more {
		return text("wrote %s: %d bytes, %d lines", path, len(args.Content), lines), nil
	}
	return text("wrote %s: %d bytes\n%s", path, len(args.Content), diff(string(before), args.Content)), nil
}

// replace writes a file in one step, following a link to the file it means and keeping
// its mode.
func replace(path string, data []byte) error {
	mode := os.FileMode(0o644)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
		if fi, err := os.Stat(path); err == nil {
			mode = fi.Mode().Perm()
		}
	}
	return atomicfile.Write(path, data, mode)
}

type editArgs struct {
	Path string `json:"path"`
	Old  string `json:"old"`
	New  string `json:"new"`
	All  bool   `json:"all"`
}

func (f *files) edit(_ context.Context, c Call) (Result, error) {
	args, err := read[editArgs](c)
	if err != nil {
		return Result{}, err
	}
	path := resolve(f.dir, args.Path)
	data, more, err := load(path)
	switch {
	case err != nil:
		return Result{}, err
	case more:
		return Result{}, fmt.Errorf("%s is too large to be edited (over %d bytes); use bash", path, maxRead)
	case args.Old == "":
		return Result{}, errors.New("old is empty; use write_file for a new file")
	case args.Old == args.New:
		return Result{}, errors.New("old and new are the same")
	}
	before := string(data)
	n := strings.Count(before, args.Old)
	switch {
	case n == 0:
		return Result{}, fmt.Errorf("old is not in %s; read the file and copy it exactly, white space included", path)
	case n > 1 && !args.All:
		return Result{}, fmt.Errorf("old is in %s %d times; give more of what is around it, or set all", path, n)
	}
	after := strings.ReplaceAll(before, args.Old, args.New)
	if err := replace(path, []byte(after)); err != nil {
		return Result{}, err
	}
	return text("edited %s\n%s", path, diff(before, after)), nil
}
