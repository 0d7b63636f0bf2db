package telegram

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	east "github.com/yuin/goldmark/extension/ast"
	"github.com/yuin/goldmark/text"
)

// document is a text with its formatting.
type document struct {
	text  string
	spans []span // in the order of their beginnings
}

// span is a part of a document's text that is formatted in one way.
type span struct {
	kind       string // a type of Telegram's MessageEntity
	start, end int    // bytes
	url, lang  string // of "text_link", of "pre"
}

// maxNest is how deep Markdown may be nested to be formatted; what a person reads is not.
// Parsers take a time that grows with the square of it.
const maxNest = 64

var markdown = goldmark.New(goldmark.WithExtensions(extension.Strikethrough, extension.Table, extension.TaskList)).Parser()

// render returns the document that a text in Markdown describes.
func render(source string) document {
	source = clean(source)
	if nests(source) {
		return document{text: strings.TrimSpace(source)}
	}
	r := &renderer{source: []byte(source)}
	r.blocks(markdown.Parse(text.NewReader(r.source)), "")
	return r.document()
}

// plain returns a text as a document without formatting.
func plain(source string) document { return document{text: strings.TrimSpace(clean(source))} }

// clean leaves out what messages cannot hold.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', !unicode.IsControl(r):
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "�"))
}

// nests tells whether a line of s opens very many blocks, or brackets.
func nests(s string) bool {
	for line := range strings.Lines(s) {
		head := line[:len(line)-len(strings.TrimLeft(line, " \t>*+-.)0123456789"))]
		depth := strings.Count(line, "[") / 16
		for _, opener := range []string{">", "* ", "+ ", "- ", ". ", ") "} {
			depth += strings.Count(head, opener)
		}
		if depth > maxNest {
			return true
		}
	}
	return false
}

// renderer writes a document as it walks the blocks of a text.
type renderer struct {
	source []byte
	out    strings.Builder
	spans  []span
	open   []span // those that have begun; outermost first
}

// blocks writes the blocks in parent. Each line but the first begins with indent.
func (r *renderer) blocks(parent ast.Node, indent string) {
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		if n.PreviousSibling() != nil {
			r.gap(n, indent)
		}
		r.block(n, indent)
	}
}

// gap separates a block from the one before it.
func (r *renderer) gap(n ast.Node, indent string) {
	r.out.WriteString("\n" + indent)
	_, isList := n.(*ast.List)
	item, isItem := n.Parent().(*ast.ListItem)
	if tight := isItem && (isList || item.Parent().(*ast.List).IsTight); !tight { //nolint:forcetypeassert // items are in lists
		r.out.WriteString("\n" + indent)
	}
}

func (r *renderer) block(n ast.Node, indent string) {
	switch n := n.(type) {
	case *ast.Heading:
		r.within(span{kind: "bold"}, func() { r.inlines(n, indent) })
	case *ast.Blockquote:
		if r.isOpen("blockquote") {
			r.blocks(n, indent)
			return
		}
		r.within(span{kind: "blockquote"}, func() { r.blocks(n, indent) })
	case *ast.List:
		r.list(n, indent)
	case *ast.FencedCodeBlock:
		r.code("pre", string(n.Language(r.source)), strings.TrimRight(r.lines(n), "\n"))
	case *ast.CodeBlock:
		r.code("pre", "", strings.TrimRight(r.lines(n), "\n"))
	case *ast.HTMLBlock:
		r.out.WriteString(strings.TrimRight(r.lines(n), "\n"))
	case *ast.ThematicBreak:
		r.out.WriteString("———")
	case *east.Table:
		r.code("pre", "", r.table(n))
	default: // paragraphs and what is like them
		r.inlines(n, indent)
	}
}

func (r *renderer) list(n *ast.List, indent string) {
	number := n.Start
	for item := n.FirstChild(); item != nil; item = item.NextSibling() {
		if item.PreviousSibling() != nil {
			r.out.WriteString("\n" + indent)
			if !n.IsTight {
				r.out.WriteString("\n" + indent)
			}
		}
		mark := "• "
		if n.IsOrdered() {
			mark = strconv.Itoa(number) + ". "
			number++
		}
		r.out.WriteString(mark)
		r.blocks(item, indent+"   ")
	}
}

// lines returns a block's own lines.
func (r *renderer) lines(n ast.Node) string {
	var b bytes.Buffer
	for _, seg := range n.Lines().Sliced(0, n.Lines().Len()) {
		b.Write(seg.Value(r.source))
	}
	if html, ok := n.(*ast.HTMLBlock); ok && html.HasClosure() {
		b.Write(html.ClosureLine.Value(r.source))
	}
	return b.String()
}

// table returns the text of a table, in columns.
func (r *renderer) table(n *east.Table) string {
	var rows [][]string
	var widths []int
	for row := n.FirstChild(); row != nil; row = row.NextSibling() {
		var cells []string
		for cell := row.FirstChild(); cell != nil; cell = cell.NextSibling() {
			inner := &renderer{source: r.source}
			inner.inlines(cell, "")
			if len(cells) == len(widths) {
				widths = append(widths, 0)
			}
			widths[len(cells)] = max(widths[len(cells)], uniseg.StringWidth(inner.out.String()))
			cells = append(cells, inner.out.String())
		}
		rows = append(rows, cells)
	}
	var out strings.Builder
	for _, cells := range rows {
		var line strings.Builder
		for i, cell := range cells {
			if i > 0 {
				line.WriteString("  ")
			}
			line.WriteString(cell + strings.Repeat(" ", max(0, widths[i]-uniseg.StringWidth(cell))))
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return strings.TrimRight(out.String(), "\n")
}

// inlines writes what is in a block of text.
func (r *renderer) inlines(parent ast.Node, indent string) {
	for n := parent.FirstChild(); n != nil; n = n.NextSibling() {
		r.inline(n, indent)
	}
}

func (r *renderer) inline(n ast.Node, indent string) {
	switch n := n.(type) {
	case *ast.Text:
		r.out.Write(unescape(n.Segment.Value(r.source), n.IsRaw()))
		if n.SoftLineBreak() || n.HardLineBreak() {
			r.out.WriteString("\n" + indent)
		}
	case *ast.String:
		r.out.Write(n.Value)
	case *ast.CodeSpan:
		r.code("code", "", r.raw(n))
	case *ast.Emphasis:
		kind := "italic"
		if n.Level > 1 {
			kind = "bold"
		}
		r.within(span{kind: kind}, func() { r.inlines(n, indent) })
	case *east.Strikethrough:
		r.within(span{kind: "strikethrough"}, func() { r.inlines(n, indent) })
	case *ast.Link:
		r.link(string(n.Destination), func() { r.inlines(n, indent) })
	case *ast.Image:
		r.link(string(n.Destination), func() { r.inlines(n, indent) })
	case *ast.AutoLink:
		r.out.Write(n.Label(r.source)) // Telegram makes a link of it
	case *ast.RawHTML:
		for _, seg := range n.Segments.Sliced(0, n.Segments.Len()) {
			r.out.Write(seg.Value(r.source))
		}
	case *east.TaskCheckBox:
		r.out.WriteString(map[bool]string{true: "☑ ", false: "☐ "}[n.IsChecked])
	default:
		r.inlines(n, indent)
	}
}

// raw returns the text in a code span.
func (r *renderer) raw(n ast.Node) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.Write(t.Segment.Value(r.source))
		}
	}
	return strings.ReplaceAll(b.String(), "\n", " ")
}

// link writes text that leads somewhere. Where that is no address that a chat can open,
// it stands behind the text.
func (r *renderer) link(to string, text func()) {
	u, err := url.Parse(to)
	if err == nil && slices.Contains([]string{"http", "https", "tg", "mailto"}, u.Scheme) && !r.isOpen("text_link") {
		before := r.out.Len()
		r.within(span{kind: "text_link", url: to}, text)
		if r.out.Len() == before {
			r.out.WriteString(to)
		}
		return
	}
	text()
	if to != "" {
		r.out.WriteString(" (" + to + ")")
	}
}

// within formats what write writes.
func (r *renderer) within(s span, write func()) {
	s.start = r.out.Len()
	r.open = append(r.open, s)
	write()
	s = r.open[len(r.open)-1] // code within it moves its start
	r.open = r.open[:len(r.open)-1]
	r.close(s)
}

func (r *renderer) close(s span) {
	if s.end = r.out.Len(); s.end > s.start {
		r.spans = append(r.spans, s)
	}
}

// code writes code. Telegram has nothing else where there is code: what is open ends
// before it and begins again behind it.
func (r *renderer) code(kind, lang, code string) {
	for _, s := range r.open {
		r.close(s)
	}
	start := r.out.Len()
	r.out.WriteString(code)
	r.close(span{kind: kind, start: start, lang: lang})
	for i := range r.open {
		r.open[i].start = r.out.Len()
	}
}

func (r *renderer) isOpen(kind string) bool {
	return slices.ContainsFunc(r.open, func(s span) bool { return s.kind == kind })
}

func (r *renderer) document() document {
	slices.SortStableFunc(r.spans, func(a, b span) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return b.end - a.end
	})
	return document{r.out.String(), r.spans}
}
