package netstack

import (
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestParseRule(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "Example.COM.": "example.com", "*.example.com": "*.example.com", "example.com:443": "example.com:443",
		"_srv.example": "_srv.example", "localhost": "localhost", "xn--bcher-kva.example": "xn--bcher-kva.example",
		"10.0.0.5": "10.0.0.5", "10.0.0.5/32": "10.0.0.5", "10.0.0.0/8": "10.0.0.0/8", "10.0.0.0/8:5432": "10.0.0.0/8:5432", "10.0.0.5:22": "10.0.0.5:22",
		"fd00::1": "fd00::1", "fd00::/8": "fd00::/8", "[fd00::1]": "fd00::1", "[fd00::1]:443": "[fd00::1]:443", "[fd00::/8]:1": "[fd00::/8]:1",
		"::ffff:10.0.0.1": "10.0.0.1", "0.0.0.0/0": "0.0.0.0/0",
	} {
		r, err := ParseRule(in)
		if err != nil || r.String() != want {
			t.Errorf("%q: %q, %v", in, r, err)
		}
	}
	for _, in := range []string{
		"", "*", "*.", ".", "a..b", "-a.example", "a b", "a/b", "http://example.com", "example.com:0", "example.com:65536", "example.com:x",
		"10.0.0.1/8", "10.0.0", "1.2.3.4.5", "10.0.0.0/33", "[fd00::1", "[fd00::1]443", "fe80::1%eth0", "a.*.example", "bücher.example", strings.Repeat("a", 64) + ".example",
		strings.Repeat("a.", 130) + "example",
	} {
		if r, err := ParseRule(in); fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%q: %q, %v", in, r, err)
		}
	}
}

func TestNameRules(t *testing.T) {
	for _, c := range []struct {
		rule, name string
		want       bool
	}{
		{"example.com", "example.com", true},
		{"example.com", "www.example.com", false},
		{"example.com", "badexample.com", false},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "badexample.com", false},
		{"*.example.com", ".example.com", false},
		{"10.0.0.0/8", "10.0.0.1", false},
	} {
		if got := rules(t, c.rule)[0].matchesName(c.name); got != c.want {
			t.Errorf("%s, %q: %t", c.rule, c.name, got)
		}
	}
}

func TestBadPolicies(t *testing.T) {
	for _, p := range []Policy{{Mode: "some"}, {Allow: []Rule{{}}}, {Allow: []Rule{{Name: "a", Prefix: rules(t, "10.0.0.0/8")[0].Prefix}}}} {
		if _, err := New(Config{Policy: p}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", p, err)
		}
		r := start(t)
		if err := r.SetPolicy(p); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// A rule that is read back is the same rule.
func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"example.com", "*.example.com:443", "10.0.0.0/8:5432", "[fd00::/8]:1", "::ffff:10.0.0.1", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		if err := (Policy{Allow: []Rule{r}}).check(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		again, err := ParseRule(r.String())
		if err != nil || again != r {
			t.Fatalf("%q became %q, and that %q, %v", s, r, again, err)
		}
	})
}
