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
	// 4: the tether. Frames refer to the instance, and go with it; their numbers are never
	// given out again while it lives, and a copy of it begins behind all numbers that its
	// memory may know (see floor).
	`CREATE TABLE tethers (
		instance   TEXT PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
		seq        INTEGER NOT NULL,           -- the newest that was given out
		taken      INTEGER NOT NULL,           -- up to which the agent has taken ingress frames
		bytes      INTEGER NOT NULL            -- of the payloads of its frames
	) STRICT, WITHOUT ROWID;
	CREATE TABLE tether_floor (
		seq        INTEGER NOT NULL            -- the highest that any deleted tether had
	) STRICT;
	INSERT INTO tether_floor VALUES (0);
	CREATE TRIGGER tether_gone BEFORE DELETE ON tethers BEGIN
		UPDATE tether_floor SET seq = max(seq, OLD.seq);
	END;
	CREATE TABLE frames (
		instance   TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
		seq        INTEGER NOT NULL,
		ingress    INTEGER NOT NULL,           -- 1 goes to the agent, 0 comes from it
		type       TEXT NOT NULL,
		ts         TEXT NOT NULL,
		channel    TEXT NOT NULL,
		session    TEXT NOT NULL,
		msg_id     TEXT NOT NULL,
		reply_to   TEXT NOT NULL,              -- msg_id of the frame that it answers, or empty
		payload    TEXT NOT NULL,              -- JSON, or empty
		stored_at  INTEGER NOT NULL,           -- milliseconds since 1970
		PRIMARY KEY (instance, seq)
	) STRICT;
	CREATE UNIQUE INDEX frames_by_msg_id ON frames (instance, ingress, msg_id);
	CREATE INDEX frames_by_session ON frames (instance, channel, session, seq);
	CREATE INDEX frames_by_reply ON frames (instance, reply_to, seq) WHERE reply_to <> '';
	CREATE TABLE watermarks (
		instance   TEXT NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
		channel    TEXT NOT NULL,
		seq        INTEGER NOT NULL,
		PRIMARY KEY (instance, channel)
	) STRICT, WITHOUT ROWID;`,
	// 5: schedules, of users and of agents. Times as above.
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
