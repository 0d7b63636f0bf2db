package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/xfeldman/aegisvm/api"
)

// Images returns all images that are here, by name.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	var out []api.Image
	return out, c.call(ctx, http.MethodGet, "/v1/images", &out)
}

// Image returns what there is to know of an image: by a name, or the beginning of its id.
func (c *Client) Image(ctx context.Context, ref string) (api.Image, error) {
	var out api.Image
	return out, c.call(ctx, http.MethodGet, "/v1/images/inspect?"+url.Values{"ref": {ref}}.Encode(), &out)
}

// PullImage gets an image from its registry and tells how far it is. policy is "always",
// "missing" or "never".
func (c *Client) PullImage(ctx context.Context, ref, policy string, tell func(api.ImageProgress)) (api.Image, error) {
	images, err := arrived(linesOf[api.ImageProgress](ctx, c, http.MethodPost, "/v1/images/pull", api.ImagePullRequest{Ref: ref, Policy: policy}), tell)
	if err != nil {
		return api.Image{}, err
	}
	return images[0], nil
}

// WarmImage makes in advance what instances of an image start from, and returns when that
// is there.
func (c *Client) WarmImage(ctx context.Context, ref string) (api.Image, error) {
	var out api.Image
	_, err := c.exchange(ctx, http.MethodPost, "/v1/images/warm", api.ImageWarmRequest{Ref: ref}, &out)
	return out, err
}

// ImportImage takes the images in an archive or folder of the daemon's host, by its
// absolute path. name is what the image is to be called; "" leaves that to what is in it.
func (c *Client) ImportImage(ctx context.Context, path, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	q := url.Values{"path": {path}, "name": {name}}
	return arrived(lines[api.ImageProgress](ctx, c, http.MethodPost, "/v1/images/import?"+q.Encode()), tell)
}

// SendImage is ImportImage of an archive that is read from here.
func (c *Client) SendImage(ctx context.Context, archive io.Reader, name string, tell func(api.ImageProgress)) ([]api.Image, error) {
	var images []api.Image
	err := c.upload(ctx, http.MethodPost, "/v1/images/import?"+url.Values{"name": {name}}.Encode(), archive, func(resp *http.Response) (err error) {
		images, err = arrived(func(yield func(api.ImageProgress, error) bool) { readLines(ctx, resp.Body, yield) }, tell)
		return err
	})
	return images, err
}

// arrived passes progress on and returns the images at its end.
func arrived(lines iter.Seq2[api.ImageProgress, error], tell func(api.ImageProgress)) ([]api.Image, error) {
	var images []api.Image
	for p, err := range lines {
		if err != nil {
			return nil, err
		}
		if p.Image != nil {
			images = append(images, *p.Image)
			continue
		}
		tell(p)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: it has not said what became of the image", ErrEnded)
	}
	return images, nil
}

// CommitImage makes an image of an instance's image and what has changed on it. The
// instance is woken; its programs stand still meanwhile.
func (c *Client) CommitImage(ctx context.Context, ref, name string) (api.Image, error) {
	var out api.Image
	_, err := c.exchange(ctx, http.MethodPost, at(ref, "/commit"), api.ImageCommitRequest{Name: name}, &out)
	return out, err
}

// RemoveImage takes a name of an image away, or all of them if ref is its id. The image
// goes when nothing needs it any more. With force it loses its last name also while
// instances stand on it.
func (c *Client) RemoveImage(ctx context.Context, ref string, force bool) (api.ImagesRemoved, error) {
	var out api.ImagesRemoved
	q := url.Values{"ref": {ref}, "force": {strconv.FormatBool(force)}}
	return out, c.call(ctx, http.MethodDelete, "/v1/images?"+q.Encode(), &out)
}

// PruneImages removes what nobody needs; with all, images without an instance too.
func (c *Client) PruneImages(ctx context.Context, all bool) (api.ImagesRemoved, error) {
	var out api.ImagesRemoved
	return out, c.call(ctx, http.MethodPost, "/v1/images/prune?"+url.Values{"all": {strconv.FormatBool(all)}}.Encode(), &out)
}
