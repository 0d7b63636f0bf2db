package api

// TarType is the content type of copies.
const TarType = "application/x-tar"

// CopyTrailer is the trailer of GET /v1/instances/{id}/files: a Copied. Clients that
// send "TE: trailers" are told of errors in the middle by it alone; for others the
// archive is made to end in a block that no tar program takes.
const CopyTrailer = "Aegis-Copy"

// Copied answers PUT /v1/instances/{id}/files, and stands in CopyTrailer.
type Copied struct {
	Notes []string `json:"notes"`           // lines about what was left out
	Error *Error   `json:"error,omitempty"` // in the trailer only: the copy is not complete
}
