package store

// migrations leads from an empty database to the newest schema, a step each. Steps
// that were released never change: add one.
var migrations = []string{
	// 1: instances. Times are RFC 3339 with nanoseconds, in UTC, or empty.
	`CREATE TABLE instances (
		id         TEXT PRIMARY KEY,
		handle     TEXT NOT NULL UNIQUE,
		spec       TEXT NOT NULL,              -- JSON of instance.Spec
		enabled    INTEGER NOT NULL,
		created_at TEXT NOT NULL,
		updated_at TEXT NOT NULL,
		active_at  TEXT NOT NULL,
		stopped_at TEXT NOT NULL,
		why        TEXT NOT NULL,              -- why it is stopped
		magic      TEXT NOT NULL               -- hex; opens the link to its machine
	) STRICT, WITHOUT ROWID;`,
	// 2: secrets. With a rowid: rows are large.
	`CREATE TABLE secrets (
		name       TEXT PRIMARY KEY,
		key_id     TEXT NOT NULL,              -- of the master key that box is sealed with
		box        BLOB NOT NULL,              -- nonce and AES-256-GCM of the value; the name is additional data
		created_at TEXT NOT NULL,
		updated_at TEXT NOT NULL
	) STRICT;`,
	// 3: leases of instances, as JSON of instance.Lease.
	`ALTER TABLE instances ADD COLUMN lease TEXT NOT NULL DEFAULT '{}'`,
}
