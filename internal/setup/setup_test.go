package setup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/internal/apt"
	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/kernel/kerneltest"
	"github.com/xfeldman/aegisvm/internal/paths"
	"github.com/xfeldman/aegisvm/internal/rootfs"
	"github.com/xfeldman/aegisvm/internal/rootfs/rootfstest"
)

// world is a host made of scripts, and an empty home but for its kernel.
type world struct {
	Options
	t   *testing.T
	bin string // the whole PATH
	log string // what the scripts were called with
	out bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, bin: filepath.Join(dir, "bin"), log: filepath.Join(dir, "log")}
	w.Options = Options{
		Home: paths.Home(filepath.Join(dir, "home")), Out: &w.out, HasApt: true,
		Distro:  apt.Distro{ID: "debian", Codename: "bookworm"},
		Sources: []apt.Source{{URI: "http://mirror.example/debian", Suite: "bookworm", Components: "main"}},
	}
	if err := errors.Join(os.Mkdir(w.bin, 0o700), os.WriteFile(w.log, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", w.bin)
	kerneltest.Install(t, w.Home)
	data, err := io.ReadAll(rootfstest.Archive(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "base.tar"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.program(QEMU().Name, "")
	w.program("newuidmap", "")
	// The last byte of mke2fs's arguments is the file; it is left as the hole it is.
	w.program("mke2fs", "")
	w.program("mmdebstrap", "echo 'I: extracting archives...' >&2; cat "+filepath.Join(dir, "base.tar"))
	return w
}

// program puts a script into the PATH. It logs its call first.
func (w *world) program(name, script string) {
	w.t.Helper()
	text := "#!/bin/sh\nPATH=/usr/bin:/bin\necho \"" + name + " $*\" >> " + w.log + "\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(w.bin, name), []byte(text), 0o700); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.bin, name)); err != nil {
		w.t.Fatal(err)
	}
}

// calls returns the logged calls of a program.
func (w *world) calls(name string) []string {
	w.t.Helper()
	data, err := os.ReadFile(w.log)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, name+" ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// unfinished returns what a set-up left half done.
func (w *world) unfinished() []string {
	w.t.Helper()
	var out []string
	for _, dir := range []string{w.Home.Images(), w.Home.Kernel()} {
		found, err := filepath.Glob(filepath.Join(dir, atomicfile.Prefix+"*"))
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

func TestSetUpAndAgain(t *testing.T) {
	w := newWorld(t)
	if err := Run(t.Context(), w.Options); err != nil {
		t.Fatal(err)
	}
	img, err := rootfs.LoadImage(w.Home, rootfs.BaseImage)
	if err != nil || img.Suite != "debian bookworm" || len(img.Env) != 1 {
		t.Errorf("image %+v, %v", img, err)
	}
	calls := w.calls("mmdebstrap")
	if len(calls) != 1 || !strings.HasPrefix(calls[0], "mmdebstrap --mode=root --include=bash,") ||
		!strings.HasSuffix(calls[0], " bookworm - deb http://mirror.example/debian bookworm main") {
		t.Errorf("mmdebstrap was called with %q", calls)
	}
	if !strings.Contains(w.out.String(), "base image: extracting archives...") {
		t.Errorf("progress was not told:\n%s", &w.out)
	}
	if left := w.unfinished(); len(left) != 0 {
		t.Errorf("%v stayed behind", left)
	}

	w.remove("mmdebstrap") // not needed any more
	start := time.Now()
	if err := Run(t.Context(), w.Options); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("nothing to do took %v", took)
	}
}

func TestOrdinaryUsersBuildInANamespace(t *testing.T) {
	w := newWorld(t)
	w.UID = 1000
	if err := Run(t.Context(), w.Options); err != nil {
		t.Fatal(err)
	}
	if calls := w.calls("mmdebstrap"); len(calls) != 1 || !strings.Contains(calls[0], "--mode=unshare ") {
		t.Errorf("mmdebstrap was called with %q", calls)
	}
}

func TestABuildThatFailsLeavesNothing(t *testing.T) {
	for name, script := range map[string]string{
		"at once":                 "echo 'E: no such mirror' >&2; exit 25",
		"after a whole archive":   "cat ../base.tar; echo 'E: no such mirror' >&2; exit 25",
		"after half an archive":   "head -c 600 ../base.tar; echo 'E: no such mirror' >&2; exit 25",
		"between two members":     "head -c 1024 ../base.tar; echo 'E: no such mirror' >&2; exit 25",
		"killed":                  "echo 'E: no such mirror' >&2; kill -9 $$",
		"success with no archive": "echo 'E: no such mirror' >&2; echo garbage; exit 1",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.program("mmdebstrap", "cd "+w.bin+"\n"+script)
			err := Run(t.Context(), w.Options)
			if err == nil || fault.HintOf(err) == "" || fault.BlameOf(err) != fault.Host || !strings.Contains(err.Error(), "no such mirror") {
				t.Errorf("error %v, hint %q", err, fault.HintOf(err))
			}
			if _, err := rootfs.LoadImage(w.Home, rootfs.BaseImage); err == nil {
				t.Error("there is a base image")
			}
			if left := w.unfinished(); len(left) != 0 {
				t.Errorf("%v stayed behind", left)
			}
		})
	}
}

func TestWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	w.UID = 1000
	w.remove("mmdebstrap")
	w.remove(QEMU().Name)
	err := Run(t.Context(), w.Options)
	want := "run: sudo apt-get install -y --no-install-recommends " + QEMU().Package + " mmdebstrap"
	if fault.KindOf(err) != fault.Unavailable || fault.HintOf(err) != want || !strings.Contains(err.Error(), QEMU().Name+", mmdebstrap") {
		t.Errorf("error %v, hint %q, want %q", err, fault.HintOf(err), want)
	}
	w.HasApt = false
	if err := Run(t.Context(), w.Options); !strings.Contains(fault.HintOf(err), "package manager") {
		t.Errorf("without apt the hint is %q", fault.HintOf(err))
	}
}

// installer is an apt-get that needs its lists first, and then brings QEMU.
func (w *world) installer() {
	w.t.Helper()
	lists, qemu := filepath.Join(w.bin, "lists"), filepath.Join(w.bin, QEMU().Name)
	w.program("apt-get", "case $1 in update) touch "+lists+";; install) test -e "+lists+" || exit 100; echo '#!/bin/sh' > "+qemu+"; chmod +x "+qemu+";; esac")
}

func TestRootInstalls(t *testing.T) {
	w := newWorld(t)
	w.remove(QEMU().Name)
	w.installer()
	if err := Run(t.Context(), w.Options); err != nil {
		t.Fatal(err)
	}
	if calls := w.calls("apt-get"); len(calls) != 3 || calls[0] != calls[2] || !strings.HasPrefix(calls[1], "apt-get update") {
		t.Errorf("apt-get was called with %q", calls)
	}
}

func TestInstallationIsAsked(t *testing.T) {
	for _, yes := range []bool{true, false} {
		w := newWorld(t)
		w.UID = 1000
		w.remove(QEMU().Name)
		w.installer()
		// It keeps the environment to itself.
		w.program("sudo", `test "$1 $2" = "env DEBIAN_FRONTEND=noninteractive" && shift 2 && "`+w.bin+`/$1" "$2" "$3" "$4" "$5"`)
		asked := ""
		w.Ask = func(q string) bool { asked = q; return yes }
		err := Run(t.Context(), w.Options)
		if (err == nil) != yes || !strings.Contains(asked, "sudo apt-get install") {
			t.Errorf("answer %v: %v, asked %q", yes, err, asked)
		}
		if got := len(w.calls("sudo")); (got > 0) != yes {
			t.Errorf("answer %v: sudo was called %d times", yes, got)
		}
	}
}

func TestTwoAtOnceDoTheWorkOnce(t *testing.T) {
	w := newWorld(t)
	w.program("mmdebstrap", "sleep 0.5; cat "+filepath.Join(w.bin, "..", "base.tar"))
	var wg sync.WaitGroup
	var outs [2]bytes.Buffer
	for i := range outs {
		wg.Go(func() {
			o := w.Options
			o.Out = &outs[i]
			if err := Run(t.Context(), o); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(w.calls("mmdebstrap")); got != 1 {
		t.Errorf("the image was built %d times", got)
	}
	if !strings.Contains(outs[0].String()+outs[1].String(), "another set-up is at work") {
		t.Errorf("nobody said that it waits:\n%s\n%s", &outs[0], &outs[1])
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.program("mmdebstrap", "trap 'echo stopped >> "+w.log+"; exit 1' TERM; echo 'I: begun' >&2; while :; do :; done") // no child that could miss the signal
	ctx, cancel := context.WithCancelCause(t.Context())
	wrong := errors.New("Ctrl-C")
	w.Out = writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "begun") {
			cancel(wrong)
		}
		return len(p), nil
	})
	start := time.Now()
	if err := Run(ctx, w.Options); !errors.Is(err, wrong) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > stopGrace+10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if len(w.calls("stopped")) != 0 || !strings.Contains(read(t, w.log), "stopped") {
		t.Error("mmdebstrap could not tidy up")
	}
	if left := w.unfinished(); len(left) != 0 {
		t.Errorf("%v stayed behind", left)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAfterAKill: what a killed set-up left is swept away, and is never an image.
func TestAfterAKill(t *testing.T) {
	w := newWorld(t)
	half := filepath.Join(w.Home.Images(), atomicfile.Prefix+"base-1")
	whole := filepath.Join(w.Home.Images(), "base.erofs") // without a description
	for _, f := range []string{half, whole} {
		if err := os.WriteFile(f, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Run(t.Context(), w.Options); err != nil {
		t.Fatal(err)
	}
	if left := w.unfinished(); len(left) != 0 {
		t.Errorf("%v stayed behind", left)
	}
	if got := len(w.calls("mmdebstrap")); got != 1 {
		t.Errorf("the image was built %d times", got)
	}
}

func TestCacheServesOtherHomes(t *testing.T) {
	first := newWorld(t)
	first.Cache = filepath.Join(t.TempDir(), "cache")
	if err := Run(t.Context(), first.Options); err != nil {
		t.Fatal(err)
	}
	second := newWorld(t)
	second.Cache = first.Cache
	second.remove("mmdebstrap")
	if err := Run(t.Context(), second.Options); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(second.out.String(), "taken from") {
		t.Errorf("it did not say where the image is from:\n%s", &second.out)
	}
	third := newWorld(t)
	third.Cache = "/dev/null/cache"
	if err := Run(t.Context(), third.Options); fault.KindOf(err) != fault.Invalid || !strings.Contains(fault.HintOf(err), CacheVariable) {
		t.Errorf("a cache that cannot be: %v, hint %q", err, fault.HintOf(err))
	}
}
