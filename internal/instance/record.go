package instance

import (
	"context"
	"time"

	"github.com/xfeldman/aegisvm/internal/guestproto"
)

// Record is what is remembered of an instance over the daemon's life: what its user
// wants, and what a later daemon needs to take over its machine. What the machine
// does now is asked of the driver.
type Record struct {
	ID      ID
	Spec    Spec
	Enabled bool
	Created time.Time
	Updated time.Time // of the last change of state
	Active  time.Time // when something last held it awake; zero is never
	Stopped time.Time // when it was last stopped; zero while it runs
	Why     string    // why it is stopped, for people
	Lease   Lease     // that keeps it awake
	// Magic opens the link to the machine that runs. It is a secret.
	Magic guestproto.Magic
	// Copy says that it begins with the memory or disk of another. It is not remembered:
	// whoever keeps something for each instance hears of it when it is saved first.
	Copy bool
}

// Store remembers Records. Package store implements it. What it has answered
// survives a crash of the host.
type Store interface {
	LoadInstances(ctx context.Context) ([]Record, error)

	// SaveInstance adds or replaces a record. A handle that another instance has is
	// a conflict.
	SaveInstance(ctx context.Context, r Record) error

	// DeleteInstance forgets an instance. It is idempotent.
	DeleteInstance(ctx context.Context, id ID) error
}
