package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Page is one Markdown file, by its path from the root of the repository.
type Page struct {
	Path   string
	Blocks []Block
	Spans  []Command // commands within sentences and tables
}

// Block is one fenced block.
type Block struct {
	Where string // PATH:LINE
	Lang  string
	How   string            // the word behind the language: vm, fake, check or none
	Attr  map[string]string // file, because, tested
	Text  string

	Commands []Command // of a console
}

// Command is one command of a console and the output that stands under it.
type Command struct {
	Where  string
	Text   string
	Output []string
}

// Fails reports whether the page shows the command as one that fails. One that prints a
// status itself does not.
func (c Command) Fails() bool {
	return !strings.Contains(c.Text, "$?") && slices.ContainsFunc(c.Output, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "hint:") })
}

// patterns are the pages that users read.
var patterns = []string{"README.md", "CONTRIBUTING.md", "docs/*.md", "examples/*/README.md"}

// Load reads all pages of the repository at root.
func Load(root string) ([]Page, error) {
	var pages []Page
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return nil, err
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			page, err := Parse(filepath.ToSlash(rel), string(b))
			if err != nil {
				return nil, err
			}
			pages = append(pages, page)
		}
	}
	return pages, nil
}

var (
	fence     = regexp.MustCompile("^( *)```+(.*)$")
	span      = regexp.MustCompile("`(aegis [^`]+)`")
	nameOnly  = regexp.MustCompile(`^aegis( [a-z]+)+$`)
	attribute = regexp.MustCompile(`^(\w+)=("[^"]*"|\S+)$`)
	infoWord  = regexp.MustCompile(`\w+=(?:"[^"]*"|\S+)|\S+`)
)

// Parse finds the blocks of a page.
func Parse(path, text string) (Page, error) {
	page := Page{Path: path}
	var open *Block
	indent := ""
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case open == nil && m != nil:
			b, err := begin(fmt.Sprintf("%s:%d", path, i+1), m[2])
			if err != nil {
				return page, err
			}
			open, indent = &b, m[1]
		case open != nil && m != nil && m[2] == "":
			page.Blocks = append(page.Blocks, *open)
			open = nil
		case open != nil:
			line = strings.TrimPrefix(line, indent)
			open.Text += line + "\n"
			if err := open.line(fmt.Sprintf("%s:%d", path, i+1), line); err != nil {
				return page, err
			}
		default:
			for _, s := range span.FindAllStringSubmatch(line, -1) {
				if c := ofSpan(s[1]); c != "" {
					page.Spans = append(page.Spans, Command{Where: fmt.Sprintf("%s:%d", path, i+1), Text: c})
				}
			}
		}
	}
	if open != nil {
		return page, fmt.Errorf("%s: the block has no end", open.Where)
	}
	return page, nil
}

// ofSpan returns the command to check for one that is named in a sentence, or "". Where that
// is a name only, it has to be one of a command.
func ofSpan(text string) string {
	switch {
	case strings.Contains(text, "...") || strings.Contains(text, "COMMAND"):
		return "" // a form of commands
	case nameOnly.MatchString(text):
		return strings.Replace(text, "aegis ", "aegis help ", 1)
	}
	return text
}

// begin reads an info string.
func begin(where, info string) (Block, error) {
	b := Block{Where: where, Attr: map[string]string{}}
	for i, word := range infoWord.FindAllString(info, -1) {
		a := attribute.FindStringSubmatch(word)
		switch {
		case a != nil:
			b.Attr[a[1]] = strings.Trim(a[2], `"`)
		case i == 0:
			b.Lang = word
		case b.How == "":
			b.How = word
		default:
			return b, fmt.Errorf("%s: two ways to test it: %s", where, info)
		}
	}
	return b, nil
}

// line takes a line of a console.
func (b *Block) line(where, line string) error {
	if b.Lang != "console" {
		return nil
	}
	last := len(b.Commands) - 1
	switch {
	case strings.HasPrefix(line, "$ "):
		b.Commands = append(b.Commands, Command{Where: where, Text: line[2:]})
	case last < 0:
		return fmt.Errorf("%s: output before any command; commands begin with $", where)
	case strings.HasPrefix(line, "> ") && len(b.Commands[last].Output) == 0:
		b.Commands[last].Text += "\n" + line[2:]
	default:
		b.Commands[last].Output = append(b.Commands[last].Output, line)
	}
	return nil
}
