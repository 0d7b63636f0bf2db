package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

const planted = "hunter2-planted"

// holder has Values where fmt asks their methods and where it cannot.
type holder struct {
	Open   Value
	hidden Value
	list   []Value
	byName map[string]Value
	deep   *Value
	any    any
}

func TestValueIsShownNowhere(t *testing.T) {
	v := New(planted)
	h := holder{v, v, []Value{v}, map[string]Value{"k": v}, &v, v}
	var out bytes.Buffer
	for _, x := range []any{v, &v, h, &h, []any{v}, map[string]any{"v": v, "h": h}, []Value{v}, errors.Join(fmt.Errorf("bad %v", v))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%o", "%08b", "%-40s|"} {
			fmt.Fprintf(&out, verb+"\n", x)
		}
		fmt.Fprint(&out, x)
		b, err := json.Marshal(x)
		fmt.Fprintf(&out, "%s %v\n", b, err)
		for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
			log.Info("m", slog.Any("x", x), slog.Group("g", slog.Any("y", x)))
		}
	}
	b, err := xml.Marshal(struct{ V Value }{v})
	fmt.Fprintf(&out, "%s %v\n", b, err)
	for _, form := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted), fmt.Sprintf("%d", []byte(planted)), fmt.Sprintf("%o", []byte(planted))} {
		if strings.Contains(out.String(), strings.Trim(form, "[]")) {
			t.Errorf("%q is shown:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), `"`+Redacted+`"`) {
		t.Error("nothing says that there is a secret")
	}
	if v.Reveal() != planted || v.Len() != len(planted) || (Value{}).Reveal() != "" {
		t.Error("Reveal returns something else")
	}
	if err := json.Unmarshal([]byte(`{"Open":"`+Redacted+`"}`), &h); err == nil {
		t.Error("a redacted text becomes a secret")
	}
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"A", "_", "API_KEY", "api_key2", strings.Repeat("x", MaxName)} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "*", "2A", "A-B", "A B", "Ä", "A\n", "A\x00", ".", "a/b", "=", "A=", strings.Repeat("x", MaxName+1)} {
		if err := CheckName(bad); fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%q: %v, hint %q", bad, err, fault.HintOf(err))
		}
	}
	for _, slip := range []string{"KEY=" + planted, "not a key=" + planted, strings.Repeat(planted, 20)} {
		err := CheckName(slip)
		if err == nil || strings.Contains(err.Error()+fault.HintOf(err), planted) {
			t.Errorf("a value given as a name: %v, hint %q", err, fault.HintOf(err))
		}
	}
}

func TestCheckValue(t *testing.T) {
	for _, ok := range []string{"x", "\n", "a\nb\n", "\x00", "ü", strings.Repeat("x", int(MaxValue))} {
		if err := CheckValue(ok); err != nil {
			t.Errorf("%.10q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "\xff", "a\xc3", strings.Repeat("x", int(MaxValue)+1)} {
		err := CheckValue(bad)
		if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%.10q: %v, hint %q", bad, err, fault.HintOf(err))
		}
	}
}
