package secret

import "time"

// Meta is what anybody may know of a secret that is stored.
type Meta struct {
	Name    string
	KeyID   string // of the key that its value is sealed with
	Created time.Time
	Updated time.Time
}

// Sealed is a secret as it is stored: only the holder of the key can open Box.
type Sealed struct {
	Meta

	Box []byte
}
