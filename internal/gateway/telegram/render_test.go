package telegram

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// shape writes a document with its spans in brackets, for comparison.
func shape(d document) string {
	var b strings.Builder
	b.WriteString(d.text)
	for _, s := range d.spans {
		fmt.Fprintf(&b, "|%s(%s)%s%s", s.kind, d.text[s.start:s.end], s.url, s.lang)
	}
	return b.String()
}

func TestRender(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"hello":                           "hello",
		"a **b** _c_ ~~d~~ `e`":           "a b c d e|bold(b)|italic(c)|strikethrough(d)|code(e)",
		"**bold `code` bold**":            "bold code bold|bold(bold )|code(code)|bold( bold)",
		"# Title\n\ntext":                 "Title\n\ntext|bold(Title)",
		"```go\nfmt.Println(1)\n```":      "fmt.Println(1)|pre(fmt.Println(1))go",
		"```\nnot closed":                 "not closed|pre(not closed)",
		"a\n\n- x\n- y\n  - z\n":          "a\n\n• x\n• y\n   • z",
		"3. x\n4. y":                      "3. x\n4. y",
		"- [x] done\n- [ ] open":          "• ☑ done\n• ☐ open",
		"> q\n> r\n\nb":                   "q\nr\n\nb|blockquote(q\nr)",
		"> > q":                           "q|blockquote(q)",
		"[x](https://e.org/a_b)":          "x|text_link(x)https://e.org/a_b",
		"[x](javascript:alert)":           "x (javascript:alert)",
		"[x](file)":                       "x (file)",
		"https://e.org/a_b_c":             "https://e.org/a_b_c",
		"<b>raw</b> & &amp; \\*":          "<b>raw</b> & & *",
		"1 < 2 and snake_case_name":       "1 < 2 and snake_case_name",
		"|a|bb|\n|-|-|\n|ccc|d|":          "a    bb\nccc  d|pre(a    bb\nccc  d)",
		"---\n":                           "———",
		"x\x00y\x1bz":                     "xyz",
		"unbalanced **bold and `code":     "unbalanced **bold and `code",
		"*" + strings.Repeat("[", 5) + "": "*[[[[[",
	} {
		if got := shape(render(in)); got != want {
			t.Errorf("%q is\n%q, want\n%q", in, got, want)
		}
	}
}

func TestSplitKeepsCodeAndCharacters(t *testing.T) {
	t.Run("code goes as a whole", func(t *testing.T) {
		code := strings.Repeat("line\n", 300)
		parts := split(render(strings.Repeat("word ", 700)+"\n\n```py\n"+code+"```\n\nend"), maxMessage)
		if len(parts) != 2 || len(parts[1].entities) != 1 || parts[1].entities[0].Length != len(code)-1 || parts[1].entities[0].Language != "py" {
			t.Errorf("%d parts; the second: %.80q %+v", len(parts), parts[1].text, parts[1].entities)
		}
	})
	t.Run("long code is cut at lines and stays code", func(t *testing.T) {
		parts := split(render("```py\n"+strings.Repeat("    indented line\n", 600)+"```"), maxMessage)
		if len(parts) < 3 {
			t.Fatalf("%d parts", len(parts))
		}
		for i, p := range parts {
			if len(p.entities) != 1 || p.entities[0].Type != "pre" || p.entities[0].Length != units(p.text) || !strings.HasPrefix(p.text, "    indented") {
				t.Errorf("part %d: %.40q %+v", i, p.text, p.entities)
			}
		}
	})
	t.Run("characters of many runes", func(t *testing.T) {
		family := "👩‍👩‍👧‍👦"
		for i, p := range split(plain("x"+strings.Repeat(family, 1000)), maxMessage) {
			if n := units(p.text); n > maxMessage {
				t.Errorf("part %d has %d units", i, n)
			}
			if strings.HasPrefix(p.text, "\u200d") || strings.HasSuffix(p.text, "\u200d") {
				t.Errorf("part %d cuts a character", i)
			}
		}
	})
	t.Run("paragraphs first", func(t *testing.T) {
		parts := split(plain(strings.Repeat("a", 3000)+"\n\n"+strings.Repeat("b c ", 1000)), maxMessage)
		if parts[0].text != strings.Repeat("a", 3000) {
			t.Errorf("the first part ends with %q", parts[0].text[len(parts[0].text)-10:])
		}
	})
}

// letters returns s without the space that splitting may drop.
func letters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
}

func FuzzRenderAndSplit(f *testing.F) {
	for _, s := range []string{
		"**a** `b`\n\n```go\nx\n```", "> a\n> - b\n>   1. c", "|a|b|\n|-|-|\n|c|d|", strings.Repeat("👩‍👩‍👧‍👦", 30), "[a](http://b) ![c](d)", "a\xffb\x00",
		"~~x *y ~~z* __w", strings.Repeat("e\u0301", 50), strings.Repeat(">", 70), "```\n" + strings.Repeat("y\n", 40),
	} {
		f.Add(s, 16)
		f.Add(s, maxMessage)
	}
	f.Fuzz(func(t *testing.T, source string, limit int) {
		if limit < 8 || limit > maxMessage || len(source) > 32<<10 {
			return
		}
		d := render(source)
		if !utf8.ValidString(d.text) {
			t.Fatalf("%q is not UTF-8", d.text)
		}
		var all strings.Builder
		for _, p := range split(d, limit) {
			n := units(p.text)
			if n > limit || n == 0 || strings.TrimSpace(p.text) == "" {
				t.Fatalf("a part of %d units: %q", n, p.text)
			}
			for _, e := range p.entities {
				if e.Length < 1 || e.Offset < 0 || e.Offset+e.Length > n {
					t.Fatalf("entity %+v in %d units", e, n)
				}
			}
			all.WriteString(p.text)
		}
		if letters(all.String()) != letters(d.text) {
			t.Fatalf("split:\n%q\nwhole:\n%q", all.String(), d.text)
		}
	})
}

// TestRenderOfNests ends: parsers take long for texts like these.
func TestRenderOfNests(t *testing.T) {
	for _, unit := range []string{">", "> ", "- ", "[", "![", "*a ", "`", "``` ", "<", "~~", "_a", "1. ", "[a](", "![a](<b", "*_", "- 1) > "} {
		begun := time.Now()
		split(render(strings.Repeat(unit, 64<<10/len(unit))), maxMessage)
		t.Logf("64 KB of %q take %v", unit, time.Since(begun))
	}
}
