package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/logattr"
	"github.com/xfeldman/aegisvm/internal/rootfs"
)

// blob is a layer as a registry has it.
type blob struct {
	digest string
	size   int64
	diffID string
}

func (s *Store) blobFile(digest string) string { return s.path("layers", hexOf(digest)) }

// ensureBlob gets a layer unless it is here. Several who want it get it once.
func (c *session) ensureBlob(ctx context.Context, b blob) error {
	s := c.store
	return s.flights.do(ctx, "layer "+b.digest, func(ctx context.Context) error {
		seen := s.counters.of(b.digest)
		path := s.blobFile(b.digest)
		if fi, err := os.Stat(path); err == nil && fi.Size() == b.size {
			seen.Store(b.size)
			now := time.Now()
			_ = os.Chtimes(path, now, now) // when it was used last, for the quota
			return nil
		}
		select {
		case s.turns <- struct{}{}:
			defer func() { <-s.turns }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := c.download(ctx, b, path, seen)
		if err != nil {
			return fmt.Errorf("layer %s: %w", short(b.digest), err)
		}
		return nil
	})
}

// download gets a layer, from where an earlier attempt ended.
func (c *session) download(ctx context.Context, b blob, path string, seen *atomic.Int64) error {
	f, err := os.OpenFile(path+".part", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return rootfs.DiskFull(err)
	}
	d := &download{session: c, blob: b, f: f, seen: seen, sum: sha256.New()}
	defer func() { _ = f.Close() }() // closed and checked below when all went well
	if err := d.resume(); err != nil {
		return err
	}
	if err := d.run(ctx); err != nil {
		return rootfs.DiskFull(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return rootfs.DiskFull(err)
	}
	return atomicfile.Rename(f.Name(), path)
}

// download is a layer on its way.
type download struct {
	*session

	blob    blob
	f       *os.File
	at      int64 // how much is here
	best    int64 // how much there has ever been
	anew    int   // how often it was begun anew
	resumed bool  // some of it was here before
	sum     hash.Hash
	seen    *atomic.Int64
}

// resume takes up what an earlier download has left.
func (d *download) resume() error {
	n, err := io.Copy(d.sum, d.f)
	if err != nil {
		return err
	}
	if n > d.blob.size {
		return d.restart()
	}
	d.at, d.resumed = n, n > 0
	d.seen.Store(n)
	return nil
}

// restart throws away what is here.
func (d *download) restart() error {
	d.at, d.resumed = 0, false
	d.anew++
	d.sum.Reset()
	d.seen.Store(0)
	return d.f.Truncate(0)
}

// maxFutile is how many attempts in a row may bring nothing, and how often a download may
// begin anew, where a registry knows no ranges.
const maxFutile = 4

// run gets the layer in as many attempts as that takes.
func (d *download) run(ctx context.Context) error {
	for futile := 0; ; {
		err := d.attempt(ctx)
		switch {
		case err == nil && d.at == d.blob.size:
			return d.verify(ctx)
		case err == nil:
			err = io.ErrUnexpectedEOF
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case final(err):
			return d.store.registryFault(d.repo.String(), err)
		}
		if futile++; d.at > d.best {
			futile = 1
		}
		d.best = max(d.best, d.at)
		if futile >= maxFutile || d.anew >= maxFutile {
			return d.store.registryFault(d.repo.String(), err)
		}
		d.store.log.InfoContext(ctx, "download goes on", logattr.Image(d.blob.digest), logattr.Err(err))
		select {
		case <-time.After(pause << futile):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pause is half of what is waited before the second attempt; it doubles with each that
// brings nothing.
const pause = 50 * time.Millisecond

// final reports whether another attempt would end the same way.
func final(err error) bool {
	if t, ok := errors.AsType[*transport.Error](err); ok {
		return t.StatusCode < 500 && t.StatusCode != http.StatusTooManyRequests && t.StatusCode != http.StatusRequestTimeout
	}
	_, ours := errors.AsType[*fault.Error](err)
	_, disk := errors.AsType[*fs.PathError](err)
	return ours || disk
}

// verify compares what is here with its digest. A download that was taken up is begun
// anew once: what was here may have been of another day.
func (d *download) verify(ctx context.Context) error {
	got := "sha256:" + hex.EncodeToString(d.sum.Sum(nil))
	if got == d.blob.digest {
		return nil
	}
	resumed := d.resumed
	if err := d.restart(); err != nil { // nothing of it is of any use
		return err
	}
	if resumed {
		return d.run(ctx)
	}
	return fault.New(fault.Invalid, "it has the digest %s instead", got).By(fault.Image).
		WithHint("the registry, or something on the way to it, is damaged")
}

// attempt asks for what is missing and takes what comes.
func (d *download) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(d.store.stall, func() { cancel(errStalled) })
	defer stalled.Stop()
	resp, err := d.ask(ctx)
	if err != nil {
		return cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if err := d.begin(resp); err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			stalled.Reset(d.store.stall)
			if err := d.take(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cause(ctx, err)
		}
	}
}

var errStalled = errors.New("nothing came for a while")

// cause prefers the reason for which a context has ended.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

func (d *download) ask(ctx context.Context) (*http.Response, error) {
	ctx = context.WithValue(ctx, layerKey{}, true)
	url := d.repo.Scheme() + "://" + d.repo.RegistryStr() + "/v2/" + d.repo.RepositoryStr() + "/blobs/" + d.blob.digest
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if d.at > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", d.at, d.blob.size-1))
	}
	client := http.Client{Transport: d.http}
	return client.Do(req)
}

// begin looks at where the answer starts.
func (d *download) begin(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if from := resp.Header.Get("Content-Range"); !strings.HasPrefix(from, "bytes "+strconv.FormatInt(d.at, 10)+"-") {
			return d.restart()
		}
		return nil
	case http.StatusOK: // all of it: there are registries that know no ranges
		if d.at > 0 {
			return d.restart()
		}
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(d.restart(), io.ErrUnexpectedEOF)
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return err
	}
	return fmt.Errorf("the registry answers %s", resp.Status)
}

// take appends what came.
func (d *download) take(p []byte) error {
	if d.at+int64(len(p)) > d.blob.size {
		return fault.New(fault.Invalid, "it is larger than the %d bytes that the image tells", d.blob.size).By(fault.Image)
	}
	if _, err := d.f.WriteAt(p, d.at); err != nil {
		return err
	}
	_, _ = d.sum.Write(p) // never fails
	d.at += int64(len(p))
	d.seen.Store(d.at)
	return nil
}
