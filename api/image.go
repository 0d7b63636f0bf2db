package api

import "time"

// Image is one line of GET /v1/images, and answers GET /v1/images/inspect.
type Image struct {
	ID           string            `json:"id"`    // "sha256:" and the digest of its description
	Names        []string          `json:"names"` // as people write them
	Default      bool              `json:"default"`
	Digest       string            `json:"digest,omitempty"` // of its manifest, in the registry it came from
	Root         string            `json:"root"`             // what its root file system is known by
	From         string            `json:"from"`             // where it came from
	Size         int64             `json:"size"`             // bytes that its root takes on the disk; images of the same layers share one
	CreatedAt    *time.Time        `json:"created_at,omitempty"`
	StoredAt     time.Time         `json:"stored_at"` // when it came here
	Architecture string            `json:"architecture"`
	OS           string            `json:"os"`
	Env          []string          `json:"env"`
	Workdir      string            `json:"workdir"`
	User         string            `json:"user"`
	Labels       map[string]string `json:"labels,omitempty"`
	UsedBy       []string          `json:"used_by"` // handles of instances
}

// ImagePullRequest is the body of POST /v1/images/pull. The answer is NDJSON: lines
// ImageProgress, of which the last has the image.
type ImagePullRequest struct {
	Ref    string `json:"ref"`
	Policy string `json:"policy,omitempty"` // "always" (the default), "missing" or "never"
}

// ImageWarmRequest is the body of POST /v1/images/warm. The answer is an Image: the next
// start of an instance of it that asks for nothing special boots nothing.
type ImageWarmRequest struct {
	Ref string `json:"ref"`
}

// ImageProgress is a line about an image on its way.
type ImageProgress struct {
	Status  string `json:"status"`            // "resolving", "downloading", "reading", "building", "done"
	Current int64  `json:"current,omitempty"` // bytes
	Total   int64  `json:"total,omitempty"`   // bytes, where that is known
	Image   *Image `json:"image,omitempty"`   // with "done"
}

// ImageCommitRequest is the body of POST /v1/instances/{id}/commit. The answer is an
// Image.
type ImageCommitRequest struct {
	Name string `json:"name"`
}

// ImagesRemoved answers requests that remove images.
type ImagesRemoved struct {
	Untagged []string `json:"untagged"` // names that are no more
	Deleted  []string `json:"deleted"`  // ids of images that are no more
	Freed    int64    `json:"freed"`    // bytes of the disk
}
