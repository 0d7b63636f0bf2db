package tool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The limits of searches.
const (
	maxEntries  = 500     // of a list
	maxMatches  = 200     // lines of grep
	maxGrepFile = 8 << 20 // bytes of a file that is searched
	maxGrepLine = 300     // bytes of a line that is shown
	maxVisited  = 200_000 // files that are looked at
	searchTime  = 30 * time.Second
)

// skipped are folders that hold nothing of the user's own.
var skipped = []string{".git", "node_modules", "__pycache__", ".venv"}

// Find returns the tools that look for files; relative paths are below dir.
func Find(dir string) []Tool {
	f := &find{dir: dir}
	path := field("string", "the folder; default "+dir)
	return []Tool{
		{
			Name:        "list_files",
			Description: "List a folder, and folders below it down to a depth.",
			Schema:      object("path", path, "depth", field("integer", "default 1")),
			Run:         f.list,
		},
		{
			Name:        "glob",
			Description: "Find files by a pattern such as **/*.go or src/*.{ts,tsx}; the newest come first. Folders such as .git and node_modules are left out.",
			Schema:      object("pattern*", field("string", "the pattern; ** is any number of folders"), "path", path),
			Run:         f.glob,
		},
		{
			Name:        "grep",
			Description: "Find lines of text files by a regular expression (RE2).",
			Schema: object("pattern*", field("string", "the expression"), "path", field("string", "a folder or file; default "+dir),
				"glob", field("string", "only files that match, such as *.py"), "ignore_case", field("boolean", "")),
			Run: f.grep,
		},
	}
}

type find struct{ dir string }

var errEnough = errors.New("enough")

// walk visits the files below root, in order, until visit has had enough.
func walk(ctx context.Context, root string, visit func(path, rel string, d fs.DirEntry) error) error {
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if n++; n > maxVisited || ctx.Err() != nil {
			return errEnough
		}
		if err != nil {
			if path == root {
				return err
			}
			return nil // what cannot be read is not searched
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			rel = filepath.Base(path)
		}
		if d.IsDir() && path != root && slices.Contains(skipped, d.Name()) {
			return fs.SkipDir
		}
		return visit(path, filepath.ToSlash(rel), d)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

type listArgs struct {
	Path  string `json:"path"`
	Depth int    `json:"depth"`
}

func (f *find) list(ctx context.Context, c Call) (Result, error) {
	args, err := read[listArgs](c)
	if err != nil {
		return Result{}, err
	}
	root := resolve(f.dir, args.Path)
	var out []string
	err = walk(ctx, root, func(path, rel string, d fs.DirEntry) error {
		if path == root {
			if !d.IsDir() {
				return fmt.Errorf("%s is no folder", root)
			}
			return nil
		}
		if len(out) >= maxEntries {
			out = append(out, fmt.Sprintf("[only the first %d]", maxEntries))
			return errEnough
		}
		line := rel
		if d.IsDir() {
			line += "/"
		} else if fi, err := d.Info(); err == nil {
			line += fmt.Sprintf("  %d", fi.Size())
		}
		out = append(out, line)
		if d.IsDir() && strings.Count(rel, "/")+1 >= max(args.Depth, 1) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	if len(out) == 0 {
		return text("%s is empty", root), nil
	}
	return Result{Text: strings.Join(out, "\n")}, nil
}

type globArgs struct {
	Pattern string `json:"pattern"`
	Path    string `json:"path"`
}

func (f *find) glob(ctx context.Context, c Call) (Result, error) {
	args, err := read[globArgs](c)
	if err != nil {
		return Result{}, err
	}
	root := resolve(f.dir, args.Path)
	pattern := args.Pattern
	if filepath.IsAbs(pattern) {
		root, pattern = "/", pattern[1:]
	}
	match, err := globRegexp(pattern)
	if err != nil {
		return Result{}, err
	}
	type hit struct {
		path string
		when time.Time
	}
	var hits []hit
	err = walk(ctx, root, func(path, rel string, d fs.DirEntry) error {
		if d.IsDir() || !match.MatchString(rel) {
			return nil
		}
		h := hit{path: path}
		if fi, err := d.Info(); err == nil {
			h.when = fi.ModTime()
		}
		hits = append(hits, h)
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return b.when.Compare(a.when) })
	var out []string
	for _, h := range hits[:min(len(hits), maxEntries)] {
		out = append(out, h.path)
	}
	switch {
	case len(hits) == 0:
		return text("no file matches %s below %s", args.Pattern, root), nil
	case len(hits) > maxEntries:
		out = append(out, fmt.Sprintf("[%d of %d]", maxEntries, len(hits)))
	}
	return Result{Text: strings.Join(out, "\n")}, nil
}

// globRegexp makes an expression of a pattern: * and ? are within a name, ** is any
// number of folders, {a,b} is one of both, [a-z] one letter.
func globRegexp(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	depth := 0
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**/"):
			b.WriteString("(?:.*/)?")
			i += 2
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(".*")
			i++
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '{':
			depth++
			b.WriteString("(?:")
		case c == '}' && depth > 0:
			depth--
			b.WriteString(")")
		case c == ',' && depth > 0:
			b.WriteString("|")
		case c == '[':
			end := strings.IndexByte(pattern[i:], ']')
			if end < 0 {
				return nil, fmt.Errorf("%q: a [ without a ]", pattern)
			}
			b.WriteString("[" + strings.Replace(pattern[i+1:i+end], "!", "^", 1) + "]")
			i += end
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	re, err := regexp.Compile("^" + b.String() + "$")
	if err != nil {
		return nil, fmt.Errorf("%q is no pattern", pattern)
	}
	return re, nil
}

type grepArgs struct {
	Pattern    string `json:"pattern"`
	Path       string `json:"path"`
	Glob       string `json:"glob"`
	IgnoreCase bool   `json:"ignore_case"`
}

func (f *find) grep(ctx context.Context, c Call) (Result, error) {
	args, err := read[grepArgs](c)
	if err != nil {
		return Result{}, err
	}
	expr := args.Pattern
	if args.IgnoreCase {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return Result{}, fmt.Errorf("pattern: %w", err)
	}
	var only *regexp.Regexp
	if args.Glob != "" {
		if only, err = globRegexp(args.Glob); err != nil {
			return Result{}, err
		}
	}
	root := resolve(f.dir, args.Path)
	var out []string
	err = walk(ctx, root, func(path, rel string, d fs.DirEntry) error {
		if !d.Type().IsRegular() || (only != nil && !only.MatchString(rel) && !only.MatchString(d.Name())) {
			return nil
		}
		out = append(out, grepFile(re, path, maxMatches-len(out))...)
		if len(out) >= maxMatches {
			out = append(out, fmt.Sprintf("[only the first %d]", maxMatches))
			return errEnough
		}
		return nil
	})
	if err != nil {
		return Result{}, err
	}
	if len(out) == 0 {
		return text("no line matches %s below %s", args.Pattern, root), nil
	}
	return Result{Text: strings.Join(out, "\n")}, nil
}

// grepFile returns the lines of a text file that match, each with path and number.
func grepFile(re *regexp.Regexp, path string, limit int) []string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close() //nolint:errcheck // only read
	if fi, err := file.Stat(); err != nil || fi.Size() > maxGrepFile {
		return nil
	}
	var out []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxGrepFile)
	for n := 1; lines.Scan() && len(out) < limit; n++ {
		line := lines.Bytes()
		if n == 1 && bytes.IndexByte(line, 0) >= 0 {
			return nil
		}
		if re.Match(line) {
			out = append(out, fmt.Sprintf("%s:%d:%s", path, n, clip(string(line), maxGrepLine)))
		}
	}
	return out
}
