package tool

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/agent/memory"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// FuzzPageText reads pages as the web serves them: no markup of theirs hides text of the
// tool's own, and links lead to the web or nowhere.
func FuzzPageText(f *testing.F) {
	for _, page := range []string{
		"<h1>a</h1><p>b <a href=/c>d</a>", "<script>x</script><a href='javascript:alert(1)'>y</a>", "<svg><p>z", "<pre>\n a\n</pre",
		"<a href='http://[::1'>x</a>", "<td><td><li>&amp;&#0;\xff", strings.Repeat("<div>", 500), "<a href=\"//evil.example\">e</a><title>t",
	} {
		f.Add([]byte(page))
	}
	base := &url.URL{Scheme: "https", Host: "site.test", Path: "/dir/"}
	f.Fuzz(func(t *testing.T, page []byte) {
		got := pageText(page, base)
		if len(got) > 16*len(page)+100+len(base.String())*strings.Count(string(page), "<") {
			t.Fatalf("%d bytes became %d", len(page), len(got))
		}
		if strings.TrimSpace(got) != got || strings.Contains(got, "\n\n\n") {
			t.Fatalf("%q", got)
		}
	})
}

// FuzzCall makes calls as a model writes them, with tools that touch nothing but their own
// files. What it is told back can be sent, and tells no secret.
func FuzzCall(f *testing.F) {
	for _, c := range [][2]string{
		{"memory_store", `{"text":"x sk-very-secret"}`},
		{"memory_search", `{"query":"x"}`},
		{"memory_delete", `{"id":"x"}`},
		{"cron_create", `{"schedule":"* * * * *","message":"sk-very-secret"}`},
		{"cron_list", `{}`},
		{"cron_delete", `{"id":1}`},
		{"cron_create", `{"schedule":"@reboot","message":"x","session":"../y"}`},
		{"cron_enable", ``},
		{"nothing", `null`},
		{"memory_store", `[1,`},
	} {
		f.Add(c[0], []byte(c[1]))
	}
	dir := f.TempDir()
	set := NewSet(append(Memory(memory.New(filepath.Join(dir, "memory.json"))), Cron(filepath.Join(dir, "cron.json"))...), secret.New("sk-very-secret"))
	f.Fuzz(func(t *testing.T, name string, args []byte) {
		r, err := set.Run(t.Context(), name, Call{Args: json.RawMessage(args), Reply: func(api.Picture) {}})
		text := r.Text
		if err != nil {
			text = err.Error()
		}
		if strings.Contains(text, "has a defect") || strings.Contains(text, "sk-very-secret") || !utf8.ValidString(r.Text) || len(r.Text) > maxText+100 {
			t.Fatalf("%s %s: %q", name, args, text)
		}
	})
}
