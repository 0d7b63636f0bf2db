package telegram

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	tg "github.com/OvyFlash/telegram-bot-api"
	"github.com/rivo/uniseg"
)

// The limits of one message. Text is counted in UTF-16 units.
const (
	maxMessage  = 4096
	maxEntities = 100
)

// part is what one message holds.
type part struct {
	text     string
	entities []tg.MessageEntity
}

// units returns the length of s in UTF-16 units.
func units(s string) int {
	n := 0
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}

// split returns a document as messages of at most limit units, each with some text.
func split(d document, limit int) []part {
	var parts []part
	from := 0
	for from < len(d.text) {
		to := d.cut(from, limit)
		if p, ok := d.part(from, to); ok {
			parts = append(parts, p)
		}
		from = to
	}
	return parts
}

// cut returns where a message that begins at from ends, which is behind from.
func (d document) cut(from, limit int) int {
	var end int // the last place that is within the limit
	least := -1 // the one at a quarter of it
	for n, i := 0, from; ; {
		if i == len(d.text) {
			return i
		}
		r, size := utf8.DecodeRuneInString(d.text[i:])
		if n += utf16.RuneLen(r); n > limit {
			end = i
			break
		}
		if i += size; least < 0 && n >= limit/4 {
			least = i
		}
	}
	window := d.text[least:end]
	if s, ok := d.block(end); ok {
		if s.start >= least && units(d.text[s.start:s.end]) <= limit {
			return s.start // the code as a whole goes into the next message
		}
		if i := strings.LastIndexByte(window, '\n'); i >= 0 && least+i > s.start {
			return least + i + 1
		}
	}
	for _, sep := range []string{"\n\n", "\n", " "} {
		if i := strings.LastIndex(window, sep); i >= 0 {
			return least + i + len(sep)
		}
	}
	return boundary(d.text, from, end)
}

// block returns the block of code that at is in the middle of.
func (d document) block(at int) (span, bool) {
	for _, s := range d.spans {
		if s.kind == "pre" && s.start < at && at < s.end {
			return s, true
		}
	}
	return span{}, false
}

// boundary returns the last place up to end that cuts no character as people see it.
func boundary(s string, from, end int) int {
	at := from
	for rest, state := s[from:], -1; rest != ""; {
		var cluster string
		cluster, rest, _, state = uniseg.FirstGraphemeClusterInString(rest, state)
		if at+len(cluster) > end {
			break
		}
		at += len(cluster)
	}
	if at == from { // one character is longer than a message
		return end
	}
	return at
}

// part returns the message of what is between from and to, without space around it.
func (d document) part(from, to int) (part, bool) {
	s := d.text[from:to]
	to -= len(s) - len(strings.TrimRight(s, " \t\n"))
	if to <= from {
		return part{}, false
	}
	// Not the indentation of a first line: it may be that of code.
	for from < to && d.text[from] == '\n' {
		from++
	}
	p := part{text: d.text[from:to]}
	if strings.TrimSpace(p.text) == "" {
		return part{}, false
	}
	for _, s := range d.spans {
		start, end := max(s.start, from), min(s.end, to)
		if start >= end || len(p.entities) == maxEntities {
			continue
		}
		p.entities = append(p.entities, tg.MessageEntity{
			Type: s.kind, Offset: units(d.text[from:start]), Length: units(d.text[start:end]), URL: s.url, Language: s.lang,
		})
	}
	return p, true
}
