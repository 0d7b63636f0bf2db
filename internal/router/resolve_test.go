package router

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func http80(guest uint16) instance.Expose {
	return instance.Expose{Guest: guest, Protocol: instance.HTTP}
}

func tcp(guest uint16) instance.Expose {
	return instance.Expose{Guest: guest, Protocol: instance.TCP}
}

func TestFind(t *testing.T) {
	s := &stubInstances{}
	s.add("web", tcp(5432), http80(3000), http80(80))
	s.add("Web2", http80(80))
	s.add("db", tcp(5432))
	s.add("bare")
	s.add("8080-app", http80(1234))
	s.add("app", http80(8080))
	s.add("my.site.v2", http80(80), http80(81))
	s.add("9-", http80(9))
	s.add("under_score", http80(80))
	s.add("case", http80(1))
	s.add("CASE", http80(2))
	f := NewFront(s, nil)
	for _, c := range []struct {
		host, header string
		handle       string
		port         uint16 // 0 is not found
		says, hint   string
	}{
		{host: "web.localhost:8099", handle: "web", port: 3000}, // HTTP comes first
		{host: "web.localhost", handle: "web", port: 3000},
		{host: "WEB.LocalHost:8099", handle: "web", port: 3000},
		{host: "web.localhost.:8099", handle: "web", port: 3000},
		{host: "80-web.localhost:8099", handle: "web", port: 80},
		{host: "5432-web.localhost:8099", handle: "web", port: 5432},
		{host: "web2.localhost:8099", handle: "Web2", port: 80},
		{host: "80-web2.localhost:8099", handle: "Web2", port: 80},
		{host: "db.localhost", handle: "db", port: 5432},
		{host: "inst-web.localhost", handle: "web", port: 3000},
		{host: "80-inst-web.localhost", handle: "web", port: 80},
		{host: "8080-app.localhost", handle: "8080-app", port: 1234}, // the whole name comes first
		{host: "1234-8080-app.localhost", handle: "8080-app", port: 1234},
		{host: "my.site.v2.localhost", handle: "my.site.v2", port: 80},
		{host: "81-my.site.v2.localhost", handle: "my.site.v2", port: 81},
		{host: "9-.localhost", handle: "9-", port: 9},
		{host: "9-9-.localhost", handle: "9-", port: 9},
		{host: "under_score.localhost", handle: "under_score", port: 80},
		{host: "case.localhost", handle: "case", port: 1},
		{host: "127.0.0.1:8099", header: "web", handle: "web", port: 3000},
		{host: "127.0.0.1:8099", header: "inst-db", handle: "db", port: 5432},
		{host: "127.0.0.1:8099", header: "CASE", handle: "CASE", port: 2},
		{host: "web.localhost:8099", header: "db", handle: "db", port: 5432},
		{host: "", header: "web", handle: "web", port: 3000},

		{host: "nobody.localhost", says: `"nobody"`, hint: "aegis instance list"},
		{host: "80-nobody.localhost", says: `"nobody"`, hint: "aegis instance list"},
		{host: "www.web.localhost", says: `"www.web"`, hint: "aegis instance list"},
		{host: "web.localhost", header: "nobody", says: `"nobody"`, hint: "aegis instance list"},
		{host: "bare.localhost", says: "bare has no port", hint: "aegis instance expose bare 80"},
		{host: "443-web.localhost", says: "port 443 of web is not exposed", hint: "aegis instance expose web 443"},
		{host: "0-web.localhost", says: "port 0 of web", hint: "aegis instance expose"},
		{host: "99999-web.localhost", says: `"99999-web"`, hint: "aegis instance list"},
		{host: "-web.localhost", says: `"-web"`, hint: "aegis instance list"},
		{host: ".localhost", says: `""`, hint: "aegis instance list"},
		{host: "127.0.0.1:8099", says: "which of 10 instances", hint: InstanceHeader},
		{host: "localhost:8099", says: "which of 10 instances", hint: "HANDLE.localhost"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		if c.header != "" {
			r.Header.Set(InstanceHeader, c.header)
		}
		v, port, err := f.find(r)
		if c.port != 0 {
			if err != nil || v.Spec.Handle != c.handle || port != c.port {
				t.Errorf("%s, %q: port %d of %q, %v, want %d of %q", c.host, c.header, port, v.Spec.Handle, err, c.port, c.handle)
			}
			continue
		}
		if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.HintOf(err), c.hint) {
			t.Errorf("%s, %q: port %d of %q, %v (%s)", c.host, c.header, port, v.Spec.Handle, err, fault.HintOf(err))
		}
	}
}

// TestFindTheOnly asks for no instance by name.
func TestFindTheOnly(t *testing.T) {
	s := &stubInstances{}
	f := NewFront(s, nil)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "localhost:8099"
	if _, _, err := f.find(r); fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "instance start --expose") {
		t.Errorf("no instance: %v (%s)", err, fault.HintOf(err))
	}
	s.add("disabled", http80(80)).Enabled = false
	s.add("run", http80(80)).Spec.Ephemeral = true
	s.add("bare")
	if _, _, err := f.find(r); fault.KindOf(err) != fault.NotFound {
		t.Errorf("none that counts: %v", err)
	}
	s.add("web", http80(8000))
	if v, port, err := f.find(r); err != nil || v.Spec.Handle != "web" || port != 8000 {
		t.Errorf("port %d of %q, %v", port, v.Spec.Handle, err)
	}
}

// TestLocal has requests from browsers that a site elsewhere has led here.
func TestLocal(t *testing.T) {
	const cross, mode = "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: "
	for _, c := range []struct {
		host    string
		headers []string
		ok      bool
	}{
		{"127.0.0.1:8099", nil, true},
		{"127.9.9.9", nil, true},
		{"[::1]:8099", nil, true},
		{"[::1]", nil, true},
		{"localhost:8099", nil, true},
		{"LOCALHOST.", nil, true},
		{"a.b.localhost:1", nil, true},
		{"", nil, true},
		{"evil.com:8099", nil, false}, // a name that means 127.0.0.1 by now
		{"localhost.evil.com", nil, false},
		{"evillocalhost", nil, false},
		{"127.0.0.1.nip.io:8099", nil, false},
		{"0.0.0.0:8099", nil, false},
		{"[::]:8099", nil, false},
		{"192.168.1.7:8099", nil, false},
		{"2130706433", nil, false},

		{"web.localhost:8099", []string{"Origin: http://web.localhost:8099"}, true},
		{"web.localhost:8099", []string{"Origin: http://localhost:5173"}, true},
		{"web.localhost:8099", []string{"Origin: http://127.0.0.1:3000"}, true},
		{"web.localhost:8099", []string{"Origin: https://evil.com"}, false},
		{"web.localhost:8099", []string{"Origin: null"}, false},
		{"web.localhost:8099", []string{"Origin: "}, false},
		{"web.localhost:8099", []string{"Origin: http://localhost.evil.com"}, false},
		{"web.localhost:8099", []string{"Origin: http://localhost:80@evil.com"}, false},
		{"web.localhost:8099", []string{"Origin: %zz"}, false},
		{"web.localhost:8099", []string{"Origin: http://localhost", "Origin: https://evil.com"}, false},

		{"web.localhost:8099", []string{cross, mode + "navigate", "Referer: https://chat.example/"}, true}, // a link
		{"web.localhost:8099", []string{cross, mode + "no-cors", "Referer: https://evil.com/"}, false},     // an image
		{"web.localhost:8099", []string{cross, mode + "no-cors"}, false},
		{"web.localhost:8099", []string{cross, mode + "no-cors", "Referer: http://app.localhost:8099/page"}, true},
		{"web.localhost:8099", []string{"Sec-Fetch-Site: same-origin", mode + "no-cors"}, true},
		{"web.localhost:8099", []string{"Sec-Fetch-Site: none", mode + "navigate"}, true},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = c.host
		for _, h := range c.headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Add(name, value)
		}
		if err := local(r); (err == nil) != c.ok || err != nil && (fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "") {
			t.Errorf("%s %q: %v", c.host, c.headers, err)
		}
	}
}
