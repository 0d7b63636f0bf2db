package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
)

func TestPull(t *testing.T) {
	s, r := newStore(t), newServer(t)
	img := imageOf(t, []v1.Layer{
		layerOf(t, reg("a", "lower"), reg("b", "b"), reg("d/x", "x")),
		packed(t, compression.ZStd, reg("a", "upper"), reg(".wh.b", "")),
		packed(t, compression.None, reg("d/.wh..wh..opq", ""), reg("d/y", "y")),
	}, func(c *v1.ConfigFile) {
		c.Config = v1.Config{Env: []string{"PATH=/opt", "K=v"}, WorkingDir: "/srv/here", User: "7:8", Labels: map[string]string{"l": "1"}}
	})
	ref := r.push(t, "some/app:1", img)
	var told []api.ImageProgress
	var mu sync.Mutex
	got, err := s.Pull(t.Context(), ref, "", func(p api.ImageProgress) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != id.String() || got.Digest != manifest.String() || !slices.Equal(got.Names, []string{ref}) || got.Labels["l"] != "1" || got.Size == 0 {
		t.Errorf("pulled %+v, want id %s and manifest %s", got, id, manifest)
	}
	if len(told) == 0 || told[0].Status != "resolving" {
		t.Errorf("told %+v", told)
	}
	same(t, contents(t, s, ref), map[string]string{"a": "upper", "d/y": "y"})
	base, release, err := s.Resolve(t.Context(), ref, instance.PullMissing)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if base.ID != got.ID || base.Workdir != "/srv/here" || base.User != "7:8" || !slices.Equal(base.Env, []string{"PATH=/opt", "K=v"}) {
		t.Errorf("base %+v", base)
	}
	unfinished(t, s)
	// A daemon that comes later knows it too.
	same(t, contents(t, reopen(t, s.home), id.Hex[:12]), map[string]string{"a": "upper", "d/y": "y"})
}

// TestPolicies moves a tag and looks at what each policy makes of it.
func TestPolicies(t *testing.T) {
	s, r := newStore(t), newServer(t)
	one := imageOf(t, []v1.Layer{layerOf(t, reg("v", "1"))})
	ref := r.push(t, "app:latest", one)
	version := func(pull instance.Pull) string {
		t.Helper()
		base, release, err := s.Resolve(t.Context(), ref, pull)
		if err != nil {
			return string(fault.KindOf(err))
		}
		defer release()
		return rootContents(t, s, base.Root)["v"]
	}
	if got := version(instance.PullNever); got != string(fault.NotFound) {
		t.Errorf("never, before it is here: %s", got)
	}
	if got := version(instance.PullMissing); got != "1" {
		t.Errorf("missing: %s", got)
	}
	r.spoil(nil) // forgets what was asked
	if got := version(instance.PullMissing); got != "1" || r.count("GET") != 0 {
		t.Errorf("missing, when it is here: %s after %d requests", got, r.count("GET"))
	}
	if got := version(instance.PullAlways); got != "1" || r.count("/blobs/") != 0 || r.count("GET", "/manifests/") != 0 {
		t.Errorf("always, of the same: %s; it was fetched again: %q", got, r.asked)
	}
	held, release, err := s.Resolve(t.Context(), ref, "")
	if err != nil {
		t.Fatal(err)
	}
	r.push(t, "app:latest", imageOf(t, []v1.Layer{layerOf(t, reg("v", "2"))}))
	for pull, want := range map[instance.Pull]string{instance.PullNever: "1", instance.PullMissing: "1"} {
		if got := version(pull); got != want {
			t.Errorf("%s, after the tag moved: %s, want %s", pull, got, want)
		}
	}
	if got := version(instance.PullAlways); got != "2" {
		t.Errorf("always, after the tag moved: %s", got)
	}
	if got := rootContents(t, s, held.Root)["v"]; got != "1" {
		t.Errorf("what was resolved before is %s", got)
	}
	release()
	s.Collect(t.Context())
	if got := ids(t, s); len(got) != 1 || got[0] == held.ID {
		t.Errorf("after the old one was let go there is %v", got)
	}
	if _, _, err := s.Resolve(t.Context(), ref, "sometimes"); err == nil {
		_, err = s.Pull(t.Context(), ref, "sometimes", quiet)
		if fault.KindOf(err) != fault.Invalid {
			t.Errorf("an unknown policy: %v", err)
		}
	}
}

func TestPullByDigest(t *testing.T) {
	s, r := newStore(t), newServer(t)
	img := imageOf(t, []v1.Layer{layerOf(t, reg("v", "1"))})
	r.push(t, "app:latest", img)
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref := r.ref("app@" + d.String())
	if _, err := s.Pull(t.Context(), ref, instance.PullMissing, quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, ref), map[string]string{"v": "1"})
	other := r.ref("app@sha256:" + strings.Repeat("0", 64))
	if _, err := s.Pull(t.Context(), other, "", quiet); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a digest that is not there: %v", err)
	}
}

// basic is a user of a registry.
type basic struct{ user, password string }

func (b basic) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: b.user, Password: b.password}, nil
}

// bearer makes a registry want tokens that only me may have.
func (s *server) bearer(next http.Handler, w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/token":
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"token":"good"}`)
	case r.Header.Get("Authorization") != "Bearer good":
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
	default:
		next.ServeHTTP(w, r)
	}
}

func TestPullWithCredentials(t *testing.T) {
	r := newServer(t)
	ref := r.push(t, "private:1", imageOf(t, []v1.Layer{layerOf(t, reg("v", "1"))}))
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) { r.bearer(next, w, req) })
	for name, c := range map[string]struct {
		who  authn.Keychain
		want fault.Kind
	}{
		"me":      {basic{"me", "secret"}, ""},
		"nobody":  {nobody{}, fault.Denied},
		"another": {basic{"me", "wrong"}, fault.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, func(o *Options) { o.Keychain = c.who })
			_, err := s.Pull(t.Context(), ref, "", quiet)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				same(t, contents(t, s, ref), map[string]string{"v": "1"})
				return
			}
			if fault.KindOf(err) != c.want || !strings.Contains(fault.HintOf(err), "docker login") {
				t.Errorf("%v (%s, hint %q), want %s", err, fault.KindOf(err), fault.HintOf(err), c.want)
			}
			if err != nil && strings.Contains(err.Error(), "wrong") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

// TestRedirects lets another server have the layers, which must not get the token.
func TestRedirects(t *testing.T) {
	r := newServer(t)
	l := layerOf(t, reg("v", "1"))
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l}))
	var leaked atomic.Bool
	var served atomic.Int32
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		served.Add(1)
		rc, err := l.Compressed()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(w, rc)
		_ = rc.Close()
	}))
	defer cdn.Close()
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isBlob(req, digestString(t, l)) && req.Header.Get("Authorization") == "Bearer good" {
			http.Redirect(w, req, strings.Replace(cdn.URL, "127.0.0.1", "localhost", 1)+"/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		r.bearer(next, w, req)
	})
	s := newStore(t, func(o *Options) { o.Keychain = basic{"me", "secret"} })
	if _, err := s.Pull(t.Context(), ref, "", quiet); err != nil {
		t.Fatal(err)
	}
	if served.Load() != 1 || leaked.Load() {
		t.Errorf("the other server was asked %d times; it got the token: %t", served.Load(), leaked.Load())
	}
	same(t, contents(t, s, ref), map[string]string{"v": "1"})
}

// TestConcurrentPulls pulls images that share a layer, several times each.
func TestConcurrentPulls(t *testing.T) {
	shared := layerOf(t, reg("shared", noise(5, 300<<10)))
	r, s := newServer(t), newStore(t)
	digests := map[string]bool{digestString(t, shared): true}
	var refs []string
	for i := range 3 {
		own := layerOf(t, reg("own", strconv.Itoa(i)))
		digests[digestString(t, own)] = true
		refs = append(refs, r.push(t, fmt.Sprint("app", i, ":1"), imageOf(t, []v1.Layer{shared, own})))
	}
	r.spoil(nil)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), refs[i%3], "", quiet); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for d := range digests {
		if n := r.count("GET", d); n != 1 {
			t.Errorf("layer %s was fetched %d times", d, n)
		}
	}
	for i, ref := range refs {
		same(t, contents(t, s, ref), map[string]string{"shared": noise(5, 300<<10), "own": strconv.Itoa(i)})
	}
	unfinished(t, s)
}

// TestOneLeaves gives one of two pulls of the same image up: the other goes on.
func TestOneLeaves(t *testing.T) {
	l := layerOf(t, reg("big", noise(6, 300<<10)))
	digest := digestString(t, l)
	r, s := newServer(t), newStore(t)
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{l}))
	asked, goOn := make(chan struct{}), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isBlob(req, digest) {
			close(asked)
			select {
			case <-goOn:
			case <-req.Context().Done():
			}
		}
		next.ServeHTTP(w, req)
	})
	ctx, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Pull(ctx, ref, "", quiet); left <- err }()
	<-asked
	go func() { _, err := s.Pull(t.Context(), ref, "", quiet); stayed <- err }()
	waitFor(t, func() bool {
		s.flights.mu.Lock()
		defer s.flights.mu.Unlock()
		f := s.flights.m["layer "+digest]
		return f != nil && f.waiting > 2 // the first with its builder, and the second
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	close(goOn)
	if err := <-stayed; err != nil {
		t.Errorf("the one that stayed: %v", err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestArchitectures(t *testing.T) {
	r, s := newServer(t), newStore(t)
	foreign := "s390x"
	of := func(arch string) v1.Image {
		return imageOf(t, []v1.Layer{layerOf(t, reg("arch", arch))}, func(c *v1.ConfigFile) { c.Architecture = arch })
	}
	add := func(arch, os string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: of(arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{Architecture: arch, OS: os}}}
	}
	index := func(repo string, adds ...mutate.IndexAddendum) string {
		ref, err := name.ParseReference(r.ref(repo))
		if err != nil {
			t.Fatal(err)
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		defer transport.CloseIdleConnections()
		if err := remote.WriteIndex(ref, mutate.AppendManifests(empty.Index, adds...), remote.WithTransport(transport)); err != nil {
			t.Fatal(err)
		}
		return r.ref(repo)
	}
	both := index("both:1", add(foreign, "linux"), add("unknown", "unknown"), add(runtime.GOARCH, "linux"))
	if _, err := s.Pull(t.Context(), both, "", quiet); err != nil {
		t.Fatal(err)
	}
	same(t, contents(t, s, both), map[string]string{"arch": runtime.GOARCH})
	for _, ref := range []string{
		index("other:1", add(foreign, "linux"), add(runtime.GOARCH, "windows")),
		r.push(t, "single:1", of(foreign)),
	} {
		_, err := s.Pull(t.Context(), ref, "", quiet)
		if fault.KindOf(err) != fault.Invalid || fault.BlameOf(err) != fault.Image || !strings.Contains(err.Error(), foreign) {
			t.Errorf("%s: %v, want invalid, with what there is", ref, err)
		}
	}
}

func TestRegistryThatLies(t *testing.T) {
	r := newServer(t)
	ref := r.push(t, "app:1", imageOf(t, []v1.Layer{layerOf(t, reg("v", "1"))}))
	for name, answer := range map[string]func(w http.ResponseWriter){
		"no manifest":         func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") },
		"an endless manifest": func(w http.ResponseWriter) { endless(w) },
		"an old manifest": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
			_, _ = io.WriteString(w, "{}")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if strings.Contains(req.URL.Path, "/manifests/") {
					answer(w)
					return
				}
				next.ServeHTTP(w, req)
			})
			_, err := newStore(t).Pull(t.Context(), ref, "", quiet)
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unavailable {
				t.Errorf("%v (%s)", err, k)
			}
		})
	}
}

func endless(w http.ResponseWriter) {
	for b := []byte(strings.Repeat(" ", 1<<20)); ; {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// TestSilentRegistry takes requests and answers none.
func TestSilentRegistry(t *testing.T) {
	r := newServer(t)
	r.spoil(func(_ http.ResponseWriter, req *http.Request, _ http.Handler) { <-req.Context().Done() })
	s := newStore(t, func(o *Options) { o.Stall = 50 * time.Millisecond })
	if _, err := s.Pull(t.Context(), r.ref("app:1"), "", quiet); fault.KindOf(err) != fault.Timeout {
		t.Errorf("%v, want a timeout", err)
	}
}

// TestNoRegistry tells what to do.
func TestNoRegistry(t *testing.T) {
	r := newServer(t)
	ref := r.ref("app:1")
	r.Close()
	_, err := newStore(t).Pull(t.Context(), ref, "", quiet)
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.HintOf(err), "import") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
}
