package session

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/xfeldman/aegisvm/api"
)

// maxName bounds a file's name. File systems have 255 bytes.
const maxName = 160

// FileName returns the name of a session's file: CHANNEL_ID.jsonl, in which all but
// letters, digits, '-', '.' and '_' is written as %XX, and so is a '_' of the channel and
// a leading '.'. Names that would be too long end in a digest.
func FileName(s api.Session) string {
	name := escape(s.Channel, false) + "_" + escape(s.ID, true)
	if len(name) > maxName {
		sum := sha256.Sum256([]byte(name))
		name = name[:maxName-34] + "%." + hex.EncodeToString(sum[:16])
	}
	return name + ".jsonl"
}

// ParseFileName returns the session that a file is of. It reports false for names that
// FileName does not make, and for those that end in a digest.
func ParseFileName(name string) (api.Session, bool) {
	base, ok := strings.CutSuffix(name, ".jsonl")
	channel, id, cut := strings.Cut(base, "_")
	if !ok || !cut {
		return api.Session{}, false
	}
	s := api.Session{Channel: unescape(channel), ID: unescape(id)}
	return s, FileName(s) == name
}

func escape(s string, underscore bool) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-',
			c == '.' && i > 0, c == '_' && underscore:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
				b.WriteByte(c[0])
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
