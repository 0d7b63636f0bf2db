package api

// Mount is a folder of the host in a VM, beside its workspace.
type Mount struct {
	Source   string `json:"source"` // the name of a workspace, or an absolute path of the host's
	Target   string `json:"target"` // absolute, in the VM
	ReadOnly bool   `json:"read_only,omitempty"`
}

// MaxWorkspaceFile is how many bytes a file of a workspace may have to be read or
// written over the API, and a picture to be kept.
const MaxWorkspaceFile = 10 << 20

// OctetType is the content type of files of a workspace, and of pictures on their way
// there.
const OctetType = "application/octet-stream"

// WorkspaceEntry is one name in the answer to GET /v1/instances/{id}/workspace/tree,
// which lists one folder.
type WorkspaceEntry struct {
	Name  string `json:"name"`
	IsDir bool   `json:"is_dir"`
	Size  int64  `json:"size"` // bytes; 0 for folders
}

// Written answers POST /v1/instances/{id}/workspace.
type Written struct {
	Status string `json:"status"` // "written"
	Path   string `json:"path"`
	Size   int64  `json:"size"` // bytes
}

// Blob answers POST /v1/instances/{id}/blob: a picture that is kept in the workspace, in
// the folder .aegis/blobs.
type Blob struct {
	Blob      string `json:"blob"` // the file's name
	MediaType string `json:"media_type"`
	Size      int64  `json:"size"` // bytes
}
