package provider

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/secret"
)

// FuzzRefusal reads what model servers and the proxies before them say when they refuse:
// it is shown in part, as valid text, without the key, and no wait goes backwards.
func FuzzRefusal(f *testing.F) {
	for _, s := range []struct {
		code        int
		body, after string
	}{
		{401, `{"error":{"message":"bad key sk-fuzzed-key","code":"invalid_api_key"}}`, ""},
		{429, `{"error":"slow"}`, "12"},
		{400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long"}}`, ""},
		{502, "<html>", "Wed, 21 Oct 2015 07:28:00 GMT"},
		{413, `{"message":7}`, "-1"},
		{529, "\xff\xfe", "1e300"},
		{403, `{"error":[[[]]]}`, "NaN"},
		{429, "", "1e17"},
	} {
		f.Add(s.code, s.body, s.after)
	}
	s := server{provider: OpenAI, key: secret.New("sk-fuzzed-key")}
	f.Fuzz(func(t *testing.T, code int, body, after string) {
		for _, name := range []string{"Retry-After", "Retry-After-Ms"} {
			e := s.refusal(status{code: code, body: body, header: http.Header{name: {after}}})
			msg := e.Error()
			if e.After < 0 || !utf8.ValidString(msg) || strings.Contains(msg, "sk-fuzzed-key") || utf8.RuneCountInString(msg) > maxDetail+200 {
				t.Fatalf("after %v: %q", e.After, msg)
			}
		}
	})
}
