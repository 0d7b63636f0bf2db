package setup

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

func TestRelease(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is none for this system")
	}
	program := []byte("#!/bin/sh\necho cloud-hypervisor v53.0\n")
	sum := sha256.Sum256(program)
	good := hex.EncodeToString(sum[:])
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/ch" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(program)
	}))
	defer server.Close()
	t.Setenv("PATH", t.TempDir())
	for name, c := range map[string]struct {
		release Release
		need    bool
		wants   bool   // more than nothing is to be done
		says    string // of its error; "" is none
		asks    int
		there   bool
	}{
		"nothing set":        {},
		"needed, no digest":  {need: true, wants: true, says: "no SHA-256 is known"},
		"address, no digest": {release: Release{URL: server.URL + "/ch"}, wants: true, says: "no SHA-256 is known"},
		"half a digest":      {release: Release{URL: server.URL + "/ch", SHA256: good[:20]}, wants: true, says: "no SHA-256 is known"},
		"good":               {release: Release{URL: server.URL + "/ch", SHA256: good}, wants: true, asks: 1, there: true},
		"in capitals":        {release: Release{URL: server.URL + "/ch", SHA256: strings.ToUpper(good)}, wants: true, asks: 1, there: true},
		"another program":    {release: Release{URL: server.URL + "/ch", SHA256: strings.Repeat("0", 64)}, wants: true, asks: 1, says: "its SHA-256 is " + good},
		"not there":          {release: Release{URL: server.URL + "/gone", SHA256: good}, wants: true, asks: 1, says: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			asked = 0
			s := &setup{Options: Options{Home: paths.Home(t.TempDir()), CloudHypervisor: c.release, NeedCloudHypervisor: c.need}, reporter: &reporter{out: os.Stderr}}
			if s.wantsRelease() != c.wants {
				t.Errorf("wanted: %v", !c.wants)
			}
			err := s.ensureRelease(t.Context())
			if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || fault.HintOf(err) == "") {
				t.Errorf("%v", err)
			}
			if asked != c.asks {
				t.Errorf("the server was asked %d times", asked)
			}
			fi, err := os.Stat(s.releasePath())
			if (err == nil) != c.there || err == nil && fi.Mode().Perm() != 0o755 {
				t.Errorf("%v, %v", fi, err)
			}
			if left, _ := os.ReadDir(s.Home.Lib()); len(left) > 1 || len(left) == 1 && !c.there {
				t.Errorf("left: %v", left)
			}
			if c.there && s.wantsRelease() {
				t.Error("it is fetched again")
			}
		})
	}
}
