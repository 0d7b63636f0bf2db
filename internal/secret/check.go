package secret

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

// The limits of a secret.
const (
	MaxName  = 128      // letters
	MaxValue = size.MiB // bytes
)

var nameForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckName says what is wrong with a name: it is that of an environment variable. The
// error shows nothing that may be a value: what stands behind "=" is left out, and so
// is all of a name that is too long.
func CheckName(name string) error {
	const form = "a name has letters, digits and '_', does not begin with a digit, and is at most %d long"
	key, _, assigned := strings.Cut(name, "=")
	switch {
	case len(name) <= MaxName && nameForm.MatchString(name):
		return nil
	case assigned && len(key) <= MaxName && nameForm.MatchString(key):
		return fault.New(fault.Invalid, "a secret's name has no '='").
			WithHint("the value goes another way: aegis secret set %s, with the value on stdin", key)
	case assigned || len(name) > MaxName:
		return fault.New(fault.Invalid, "bad name of a secret").WithHint(form, MaxName)
	}
	return fault.New(fault.Invalid, "bad name of a secret: %q", name).WithHint(form, MaxName)
}

// CheckValue says what is wrong with a value: it is text, since it travels as JSON, and
// not empty, since that is what a command that failed leaves behind.
func CheckValue(value string) error {
	switch {
	case value == "":
		return fault.New(fault.Invalid, "the value is empty").
			WithHint("a secret that is not wanted any more: aegis secret delete NAME")
	case len(value) > int(MaxValue):
		return fault.New(fault.Invalid, "the value is larger than %v", MaxValue).
			WithHint("keep large data in a file, and only its key as a secret")
	case !utf8.ValidString(value):
		return NotText()
	}
	return nil
}

// NotText is the error for a value that is not UTF-8.
func NotText() error {
	return fault.New(fault.Invalid, "the value is not text in UTF-8").
		WithHint("encode it, as in: base64 < key.der | aegis secret set NAME")
}
