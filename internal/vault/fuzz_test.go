package vault

import (
	"bytes"
	"testing"

	"github.com/xfeldman/aegisvm/internal/secret"
)

// FuzzOpen: nothing but what was sealed under a name opens under it.
func FuzzOpen(f *testing.F) {
	k, err := newKey(bytes.Repeat([]byte{7}, masterSize))
	if err != nil {
		f.Fatal(err)
	}
	sealed := k.seal("NAME", secret.New("value"))
	f.Add("NAME", sealed)
	f.Add("OTHER", sealed)
	f.Add("NAME", sealed[:len(sealed)-1])
	f.Add("NAME", []byte{})
	f.Add("", bytes.Repeat([]byte{0}, 28))
	f.Fuzz(func(t *testing.T, name string, box []byte) {
		if v, err := k.open(secret.Sealed{Meta: secret.Meta{Name: name}, Box: box}); err == nil && (name != "NAME" || v.Reveal() != "value") {
			t.Fatalf("%q opens as %d bytes", name, v.Len())
		}
	})
}
