package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/paths"
)

// Release is a program that is published as one file.
type Release struct {
	URL    string // "" is the pinned one
	SHA256 string // in hex; "" is the pinned one
}

// pinned are the releases of Cloud Hypervisor that AegisVM was tried with, by
// architecture: upstream's own static builds.
//
// Their digests are to be written here by whoever has compared them with what upstream
// publishes. While there is none, only a digest that the user sets makes set-up fetch.
var pinned = map[string]Release{
	"amd64": {URL: upstream + "cloud-hypervisor-static"},
	"arm64": {URL: upstream + "cloud-hypervisor-static-aarch64"},
}

const (
	upstream = "https://github.com/cloud-hypervisor/cloud-hypervisor/releases/download/v53.0/"
	// cloudHypervisor is the program's name.
	cloudHypervisor = "cloud-hypervisor"
	// maxRelease bounds a download; the program has some megabytes.
	maxRelease = 256 << 20
	// releaseTimeout bounds a download from a server that says nothing any more.
	releaseTimeout = 10 * time.Minute
)

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// release returns what is to be fetched, with what is pinned where the user sets nothing.
func (s *setup) release() Release {
	r, pin := s.CloudHypervisor, pinned[runtime.GOARCH]
	if r.URL == "" {
		r.URL = pin.URL
		if r.SHA256 == "" {
			r.SHA256 = pin.SHA256
		}
	}
	r.SHA256 = strings.ToLower(r.SHA256)
	return r
}

// wantsRelease tells whether Cloud Hypervisor is to be fetched: it is not here, and somebody
// has said what it must be, or that it is to run VMs.
func (s *setup) wantsRelease() bool {
	if runtime.GOOS != "linux" || !s.NeedCloudHypervisor && s.release().SHA256 == "" && s.CloudHypervisor.URL == "" {
		return false
	}
	if _, err := os.Stat(s.releasePath()); err == nil {
		return false
	}
	_, err := paths.Find(cloudHypervisor)
	return err != nil
}

func (s *setup) releasePath() string { return filepath.Join(s.Home.Lib(), cloudHypervisor) }

// ensureRelease fetches Cloud Hypervisor. Nothing is ever fetched without a digest.
func (s *setup) ensureRelease(ctx context.Context) error {
	if !s.wantsRelease() {
		return nil
	}
	r := s.release()
	if !digestForm.MatchString(r.SHA256) {
		return fault.New(fault.Invalid, "no SHA-256 is known that Cloud Hypervisor from %s must have", r.URL).By(fault.Host).
			WithHint("set cloud_hypervisor_sha256 to the digest that upstream publishes, or put the program into PATH")
	}
	s.line("cloud-hypervisor: downloading %s", r.URL)
	err := s.during(ctx, cloudHypervisor, func(ctx context.Context) error { return s.fetch(ctx, r) })
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "fetch Cloud Hypervisor from %s", r.URL).By(fault.Host).
			WithHint("put the program into PATH, or name another source with cloud_hypervisor_url")
	}
	s.line("cloud-hypervisor: %s", s.releasePath())
	return nil
}

// fetch downloads a release. What does not have its digest never gets its name.
func (s *setup) fetch(ctx context.Context, r Release) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server says %s", resp.Status)
	}
	if err := errors.Join(os.MkdirAll(s.Home.Lib(), 0o700), atomicfile.Sweep(s.Home.Lib())); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Home.Lib(), atomicfile.Prefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone if all went well
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(resp.Body, maxRelease+1))
	if err == nil && n > maxRelease {
		err = fmt.Errorf("it is larger than %d MB", maxRelease>>20)
	}
	if is := hex.EncodeToString(sum.Sum(nil)); err == nil && is != r.SHA256 {
		err = fmt.Errorf("its SHA-256 is %s, not %s", is, r.SHA256)
	}
	if err == nil {
		// Readable, as the unprivileged account of VMMs runs it.
		err = f.Chmod(0o755)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return atomicfile.Rename(f.Name(), s.releasePath())
}
