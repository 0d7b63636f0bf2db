package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every text form of a Value says.
const Redacted = "[redacted]"

// Value is a secret in memory. Whatever prints, logs or encodes it writes Redacted;
// Reveal alone returns it. The zero Value is empty.
type Value struct {
	// A pointer: where a Value is an unexported field, fmt prints what is in it without
	// asking its methods.
	text *string
}

// New returns text as a Value.
func New(text string) Value { return Value{&text} }

// Reveal returns the secret itself. The caller hands it to the one who needs it, and
// neither logs nor stores it.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// Len returns the secret's length in bytes.
func (v Value) Len() int { return len(v.Reveal()) }

// String implements fmt.Stringer.
func (Value) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Value) GoString() string { return Redacted }

// Format implements fmt.Formatter, for all verbs.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) } // fmt keeps the error

// MarshalText implements encoding.TextMarshaler. There is no way back.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalJSON implements json.Marshaler. There is no way back.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// LogValue implements slog.LogValuer.
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }
