package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// decode reads a request's body into out: one JSON value without unknown fields.
func decode(r *http.Request, out any) error {
	// Reading to the end also lets net/http notice when the client goes.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return malformed(err)
	}
	if !utf8.Valid(body) { // encoding/json would make other strings of it
		return fault.New(fault.Invalid, "the request is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the request has more than one JSON value")
	}
	return nil
}

func malformed(err error) error {
	if isTooLarge(err) {
		return fault.Wrap(fault.Invalid, err, "the request is too large")
	}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fault.New(fault.Invalid, "field %q takes %v, not %s", t.Field, t.Type, t.Value)
	}
	// encoding/json has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fault.New(fault.Invalid, "unknown field %s", name).
			WithHint("client and daemon may be of different versions; see: aegis version")
	}
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the request has no body")
	}
	return fault.Wrap(fault.Invalid, err, "the request is not JSON")
}
