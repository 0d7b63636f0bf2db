package strictjson

import (
	"errors"
	"testing"
)

type form struct {
	A int    `json:"a"`
	B string `json:"b"`
}

func TestDecode(t *testing.T) {
	for data, want := range map[string]string{
		`{"a": 1, "b": "x"}`:          "",
		" {} \n":                      "",
		"":                            "it ends in the middle",
		`{"a": `:                      "it ends in the middle",
		`{"a": "x"}`:                  `"a" is a string, and ought to be a int`,
		"{\n\"a\": 1,\n\"c\": 2\n}":   `line 3: unknown field "c"`,
		"{\n\"a\": 1,,\n\"b\": \"\"}": "line 2: invalid character ',' looking for beginning of object key string",
		`{} {}`:                       "it has more than one JSON value",
		"{\"b\": \"\xff\"}":           "it is not UTF-8",
	} {
		err := Decode([]byte(data), &form{})
		got := ""
		if err != nil {
			got = Explain([]byte(data), err).Error()
		}
		if got != want {
			t.Errorf("%q: %q, not %q", data, got, want)
		}
	}
}

func TestUnknownField(t *testing.T) {
	if name, ok := UnknownField(Decode([]byte(`{"c": 1}`), &form{})); !ok || name != "c" {
		t.Errorf("%q, %v", name, ok)
	}
	if _, ok := UnknownField(errors.New("another")); ok {
		t.Error("another error is one")
	}
}

func FuzzExplain(f *testing.F) {
	for _, s := range []string{`{"a": 1}`, `{"c"`, "{\n\"a\": \"\xff\"", `{"a":"x"}{`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Decode(data, &form{}); err != nil && Explain(data, err).Error() == "" {
			t.Errorf("%q is wrong without a reason", data)
		}
	})
}
