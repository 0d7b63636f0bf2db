package packaging

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// releases is a server of releases, laid out as GitHub's.
type releases struct {
	t   *testing.T
	key *rsa.PrivateKey
	url string

	mu    sync.Mutex
	files map[string][]byte // by path
}

// signer makes one key for all tests: that takes longer than anything else.
var signer = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newReleases(t *testing.T) *releases {
	t.Helper()
	key, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	r := &releases{t: t, key: key, files: map[string][]byte{}}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *releases) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.files[req.URL.Path]
	if !ok {
		http.NotFound(w, req)
		return
	}
	_, _ = w.Write(b) // the client says what it misses
}

// set puts a file where the newest release, and that of the version, has it.
func (r *releases) set(version, name string, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files["/download/v"+version+"/"+name] = b
	r.files["/latest/download/"+name] = b
}

// publish makes the newest release of packages, by their name and extension.
func (r *releases) publish(version string, packages map[string][]byte) {
	r.t.Helper()
	var sums strings.Builder
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		base, ext, _ := strings.Cut(name, ".")
		file := fmt.Sprintf("%s_%s_%s_%s.%s", base, version, runtime.GOOS, runtime.GOARCH, ext)
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(packages[name]), file)
		// Other platforms are in the list as well.
		fmt.Fprintf(&sums, "%064d  %s_%s_plan9_mips.%s\n", 0, base, version, ext)
		r.set(version, file, packages[name])
	}
	r.set(version, "checksums.txt", []byte(sums.String()))
	r.set(version, "checksums.txt.sig", r.sign([]byte(sums.String())))
}

func (r *releases) sign(b []byte) []byte {
	r.t.Helper()
	sum := sha256.Sum256(b)
	sig, err := rsa.SignPKCS1v15(nil, r.key, crypto.SHA256, sum[:])
	if err != nil {
		r.t.Fatal(err)
	}
	return sig
}

// publicKey is the key that install.sh is to believe, as it stands in there.
func (r *releases) publicKey() []byte {
	r.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&r.key.PublicKey)
	if err != nil {
		r.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// archive packs files below one folder, as releases do. Those in bin and lib are programs.
func archive(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if !strings.HasPrefix(name, "share/") {
			mode = 0o755
		}
		h := &tar.Header{Name: path.Join("aegisvm_x", name), Mode: mode, Size: int64(len(files[name]))}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{tw, zw} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// core is the archive of a release of that version whose aegis writes down what it is asked.
func core(t *testing.T, version string, more map[string]string) []byte {
	t.Helper()
	files := map[string]string{
		"bin/aegis":                             "#!/bin/sh\necho \"$*\" >>\"$HOME/calls\"\necho aegis " + version + "\n",
		"bin/aegisd":                            "#!/bin/sh\n",
		"lib/aegisvm/aegis-harness":             "harness " + version,
		"share/man/man1/aegis.1.gz":             "manual",
		"share/systemd/user/aegisd.service":     "ExecStart=/usr/bin/aegisd\n",
		"share/aegisvm/launchd/aegisd.plist":    "",
		"share/bash-completion/completions/aeg": "complete",
	}
	maps.Copy(files, more)
	return archive(t, files)
}

func kit(t *testing.T) []byte {
	t.Helper()
	return archive(t, map[string]string{"lib/aegisvm/aegis-agent": "agent", "share/aegisvm/kits/agent.json": "{}"})
}

// user is somebody who installs.
type user struct {
	t    *testing.T
	home string
	tmp  string
	env  []string
}

func newUser(t *testing.T, r *releases) *user {
	t.Helper()
	for _, program := range []string{"openssl", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: make tools installs it", err)
		}
	}
	u := &user{t: t, home: t.TempDir(), tmp: t.TempDir()}
	key := filepath.Join(u.tmp, "key.pub")
	if err := os.WriteFile(key, r.publicKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	u.env = []string{
		"HOME=" + u.home, "PATH=" + filepath.Join(u.tmp, "bin") + ":" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(),
		"AEGIS_INSTALL_URL=" + r.url, "AEGIS_INSTALL_KEY=" + key,
	}
	u.fake("id", "echo 1000") // no root
	return u
}

// fake puts a program in front of the system's.
func (u *user) fake(name, script string) {
	u.t.Helper()
	dir := filepath.Join(u.tmp, "bin")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		u.t.Fatal(err)
	}
}

// install runs install.sh, and returns what it said and whether it did well.
func (u *user) install(args ...string) (string, bool) {
	u.t.Helper()
	cmd := exec.CommandContext(u.t.Context(), "sh", append([]string{"install.sh"}, args...)...)
	cmd.Env = u.env
	out, err := cmd.CombinedOutput()
	if left, _ := os.ReadDir(u.tempDir()); len(left) > 0 {
		u.t.Errorf("install.sh %q left %v in its temporary folder", args, left)
	}
	return string(out), err == nil
}

func (u *user) tempDir() string {
	for _, v := range u.env {
		if dir, ok := strings.CutPrefix(v, "TMPDIR="); ok {
			return dir
		}
	}
	return ""
}

// must is install that does well.
func (u *user) must(args ...string) string {
	u.t.Helper()
	out, ok := u.install(args...)
	if !ok {
		u.t.Fatalf("install.sh %q: %s", args, out)
	}
	return out
}

// files lists what is in the user's home, folders with a slash.
func (u *user) files() []string {
	u.t.Helper()
	var found []string
	err := filepath.WalkDir(u.home, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == u.home {
			return err
		}
		rel, err := filepath.Rel(u.home, p)
		if d.IsDir() {
			rel += "/"
		}
		found = append(found, rel)
		return err
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return found
}

// put writes a file of the user's own.
func (u *user) put(name, content string, mode os.FileMode) {
	u.t.Helper()
	file := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) read(name string) string {
	u.t.Helper()
	b, err := os.ReadFile(filepath.Join(u.home, name))
	if err != nil {
		u.t.Fatal(err)
	}
	return string(b)
}
