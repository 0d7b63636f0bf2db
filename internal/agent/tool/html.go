package tool

import (
	"bytes"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// pageText returns what a person reads on a page, with where its links go.
func pageText(data []byte, base *url.URL) string {
	p := &pageReader{base: base}
	z := html.NewTokenizer(bytes.NewReader(data))
	for {
		switch z.Next() {
		case html.ErrorToken: // the end, or a page that is cut: what there is counts
			return p.result()
		case html.TextToken:
			p.text(string(z.Text()))
		case html.StartTagToken, html.SelfClosingTagToken:
			p.begin(z.Token())
		case html.EndTagToken:
			p.end(z.Token())
		case html.CommentToken, html.DoctypeToken:
		}
	}
}

// pageReader collects text from tags. It needs no tree, so that a page nests as deep as
// it likes.
type pageReader struct {
	base   *url.URL
	out    strings.Builder
	hidden atom.Atom // the element that is being left out, or 0
	pre    bool
	href   string
}

// blocks begin a line; hidden ones are not read.
var (
	blocks = map[atom.Atom]string{
		atom.P: "\n\n", atom.Div: "\n", atom.Br: "\n", atom.Li: "\n- ", atom.Tr: "\n", atom.Td: " | ", atom.Th: " | ", atom.Ul: "\n", atom.Ol: "\n",
		atom.H1: "\n\n# ", atom.H2: "\n\n## ", atom.H3: "\n\n### ", atom.H4: "\n\n#### ", atom.Section: "\n", atom.Article: "\n", atom.Blockquote: "\n> ",
		atom.Table: "\n", atom.Pre: "\n\n", atom.Title: "", atom.Hr: "\n",
	}
	unread = map[atom.Atom]bool{
		atom.Script: true, atom.Style: true, atom.Noscript: true, atom.Svg: true, atom.Template: true, atom.Nav: true, atom.Footer: true, atom.Iframe: true,
	}
)

func (p *pageReader) begin(t html.Token) {
	if p.hidden != 0 {
		return
	}
	if unread[t.DataAtom] && t.Type == html.StartTagToken {
		p.hidden = t.DataAtom
		return
	}
	p.out.WriteString(blocks[t.DataAtom])
	if t.DataAtom == atom.Pre {
		p.pre = true
	}
	for _, a := range t.Attr {
		if t.DataAtom == atom.A && a.Key == "href" {
			p.href = a.Val
		}
	}
}

func (p *pageReader) end(t html.Token) {
	switch {
	case p.hidden != 0:
		if t.DataAtom == p.hidden {
			p.hidden = 0
		}
		return
	case t.DataAtom == atom.Pre:
		p.pre = false
	case t.DataAtom == atom.A && p.href != "":
		if u, err := p.base.Parse(p.href); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
			p.out.WriteString(" (" + u.String() + ")")
		}
		p.href = ""
	}
	if _, ok := blocks[t.DataAtom]; ok && t.DataAtom != atom.Td && t.DataAtom != atom.Th && t.DataAtom != atom.Li {
		p.out.WriteString("\n")
	}
}

func (p *pageReader) text(s string) {
	if p.hidden != 0 {
		return
	}
	s = html.UnescapeString(s)
	if !p.pre {
		lead, trail := strings.TrimLeft(s, " \t\r\n") != s, strings.TrimRight(s, " \t\r\n") != s
		s = strings.Join(strings.Fields(s), " ")
		if lead {
			s = " " + s
		}
		if trail && s != " " {
			s += " "
		}
	}
	p.out.WriteString(s)
}

func (p *pageReader) result() string {
	var out []string
	empty := 0
	for l := range strings.SplitSeq(p.out.String(), "\n") {
		l = strings.TrimRight(l, " \t\r")
		if strings.TrimSpace(l) == "" {
			if empty++; empty > 1 {
				continue
			}
			l = ""
		} else {
			empty = 0
		}
		out = append(out, l)
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}

// plain returns a piece of HTML as text in one line.
func plain(s string) string {
	return strings.Join(strings.Fields(pageText([]byte(s), &url.URL{})), " ")
}
