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
	// schedules, of users and of agents. Times as above.
	`CREATE TABLE schedules (
		id          TEXT PRIMARY KEY,
		instance_id TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
		cron        TEXT NOT NULL,             -- an expression, or empty
		zone        TEXT NOT NULL,             -- of the expression; empty is the host's
		at          TEXT NOT NULL,             -- the one moment, or empty
		command     TEXT NOT NULL,             -- JSON
		created_at  TEXT NOT NULL,
		last        TEXT NOT NULL,             -- up to when it has been dealt with
		ran_at      TEXT NOT NULL,
		exec_id     TEXT NOT NULL,
		result      TEXT NOT NULL
	) STRICT, WITHOUT ROWID;
	CREATE INDEX schedules_of ON schedules (instance_id);
	CREATE TABLE schedule_marks (
		instance_id TEXT PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
		marks       TEXT NOT NULL              -- JSON: up to when each entry of the agent's has been dealt with
	) STRICT, WITHOUT ROWID;`,
}
