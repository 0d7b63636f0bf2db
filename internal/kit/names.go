package kit

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/secret"
)

// maxNames bounds what one file may speak of.
const maxNames = 256

// SecretNames returns the names of the stored secrets that a sidecar's file asks for: the
// values of keys that end with _secret, at any depth, in order. A value that cannot
// be a secret's name asks for none. It is not ok if the file is no JSON: nobody knows then
// what it asks for.
func SecretNames(file []byte) (names []string, ok bool) {
	if !json.Valid(file) {
		return nil, false
	}
	for _, n := range keyed(file, "_secret") {
		if secret.CheckName(n) == nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// keyed returns the strings that stand behind keys with that ending.
func keyed(doc []byte, ending string) []string {
	var v any
	if json.Unmarshal(doc, &v) != nil {
		return nil
	}
	var found []string
	var walk func(v any)
	walk = func(v any) { // as deep as encoding/json allows
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for k, x := range v {
				if s, ok := x.(string); ok && strings.HasSuffix(k, ending) && s != "" && len(found) < maxNames {
					found = append(found, s)
				}
				walk(x)
			}
		}
	}
	walk(v)
	return found
}
