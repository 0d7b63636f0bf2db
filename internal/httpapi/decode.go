package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// decode reads a request's body into out: one JSON value without unknown fields.
func decode(r *http.Request, out any) error {
	// Reading to the end also lets net/http notice when the client goes.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return malformed(err)
	}
	switch err := strictjson.Decode(body, out); {
	case errors.Is(err, strictjson.ErrUTF8):
		return fault.New(fault.Invalid, "the request is not UTF-8")
	case errors.Is(err, strictjson.ErrMore):
		return fault.New(fault.Invalid, "the request has more than one JSON value")
	case err != nil:
		return malformed(err)
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
	if name, ok := strictjson.UnknownField(err); ok {
		return fault.New(fault.Invalid, "unknown field %q", name).
			WithHint("client and daemon may be of different versions; see: aegis version")
	}
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Invalid, "the request has no body")
	}
	return fault.Wrap(fault.Invalid, err, "the request is not JSON")
}
