package telegram

import (
	"github.com/yuin/goldmark/util"
)

// unescape returns what a piece of Markdown text says: without the backslashes that keep
// characters from being markup, and with entities resolved.
func unescape(b []byte, raw bool) []byte {
	if raw {
		return b
	}
	return util.UnescapePunctuations(util.ResolveEntityNames(util.ResolveNumericReferences(b)))
}
