// Package strictjson decodes JSON that people or strangers write: one value, in UTF-8, with
// no fields but those that are known.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// What encoding/json does not mind.
var (
	ErrUTF8 = errors.New("it is not UTF-8") // other strings would be made of it
	ErrMore = errors.New("it has more than one JSON value")
)

// Decode decodes data into out. Errors are ErrUTF8, ErrMore, or encoding/json's; Explain
// has better words for them.
func Decode(data []byte, out any) error {
	if !utf8.Valid(data) {
		return ErrUTF8
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return ErrMore
	}
	return nil
}

// UnknownField returns the name of a field that err, of Decode, says is not known.
func UnknownField(err error) (name string, ok bool) {
	// encoding/json has no type for this one.
	quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field ")
	return strings.Trim(quoted, `"`), ok
}

// Explain says what an error of Decode, or of json.Unmarshal, means, in words for the author of data, and on
// which line of it.
func Explain(data []byte, err error) error {
	at, text := int64(-1), strings.TrimPrefix(err.Error(), "json: ")
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = e.Offset
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at, text = e.Offset, fmt.Sprintf("%q is a %s, and ought to be a %s", e.Field, e.Value, e.Type)
	}
	if name, ok := UnknownField(err); ok {
		at, text = int64(bytes.Index(data, []byte(`"`+name+`"`))), fmt.Sprintf("unknown field %q", name)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || text == "unexpected end of JSON input" {
		at, text = int64(len(data)), "it ends in the middle"
	}
	if at < 0 || !bytes.ContainsRune(bytes.TrimSpace(data), '\n') {
		return errors.New(text)
	}
	return fmt.Errorf("line %d: %s", 1+bytes.Count(data[:min(at, int64(len(data)))], []byte("\n")), text)
}
