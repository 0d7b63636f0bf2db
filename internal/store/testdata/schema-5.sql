CREATE TABLE instances (
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
	, lease TEXT NOT NULL DEFAULT '{}') STRICT, WITHOUT ROWID;
CREATE TABLE secrets (
		name       TEXT PRIMARY KEY,
		key_id     TEXT NOT NULL,              -- of the master key that box is sealed with
		box        BLOB NOT NULL,              -- nonce and AES-256-GCM of the value; the name is additional data
		created_at TEXT NOT NULL,
		updated_at TEXT NOT NULL
	) STRICT;
CREATE TABLE tethers (
		instance   TEXT PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
		seq        INTEGER NOT NULL,           -- the newest that was given out
		taken      INTEGER NOT NULL,           -- up to which the agent has taken ingress frames
		bytes      INTEGER NOT NULL            -- of the payloads of its frames
	) STRICT, WITHOUT ROWID;
CREATE TABLE tether_floor (
		seq        INTEGER NOT NULL            -- the highest that any deleted tether had
	) STRICT;
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
	) STRICT, WITHOUT ROWID;
CREATE TABLE schedules (
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
	) STRICT, WITHOUT ROWID;
CREATE TRIGGER tether_gone BEFORE DELETE ON tethers BEGIN
		UPDATE tether_floor SET seq = max(seq, OLD.seq);
	END;
INSERT INTO instances VALUES ('inst-0123456789a0123456789', 'old', '{"Handle":"old","Command":["text"],"Env":{"text":"text"},"Secrets":["text"],"Workdir":"text","User":"text","Image":"text","Base":{"ID":"text","Root":"text","Env":["text"],"Workdir":"text","User":"text"},"Memory":7,"VCPUs":7,"Disk":7,"Expose":[{"Guest":7,"Public":7,"Protocol":"text","ByGuest":true}],"Egress":{"Mode":"text","Allow":["text"]},"Folders":{"Workspace":"text","Of":"text","Below":"text","ReadOnly":true,"Mounts":[{"Source":"text","Target":"text","ReadOnly":true}]},"Ephemeral":false,"Stdin":true,"TTY":{"cols":7,"rows":7},"PauseAfter":7,"StopAfter":7,"Parent":"text","Kit":{"Name":"text","Version":"text","Programs":["text"],"Sidecars":[{"Program":"text","Config":"text"}]},"Capabilities":{"spawn":true,"spawn_depth":7,"max_children":7,"allowed_images":["text"],"allowed_workspaces":["text"],"allowed_secrets":["text"],"max_memory_mb":7,"max_vcpus":7,"max_expose_ports":7,"llm":["text"]},"IdlePolicy":"text"}', 1, '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', 'it was stopped', '010203000000000000000000000000000000000000000000', '{"Reason":"build","Expires":"2026-01-02T03:04:05.678Z"}');
INSERT INTO instances VALUES ('inst-0123456789a01234567890', 'bare', '{"Handle":"bare","Command":["serve"],"Env":null,"Secrets":null,"Workdir":"","User":"","Image":"","Memory":0,"VCPUs":0,"Disk":0,"Expose":null,"Ephemeral":false,"Stdin":false,"TTY":null,"PauseAfter":0,"StopAfter":0}', 0, '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '', '', '', '000000000000000000000000000000000000000000000000', '{}');
INSERT INTO secrets VALUES ('KEY', 'key-1', X'6E6F6E636500616E6420626F78', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z');
INSERT INTO tethers VALUES ('inst-0123456789a0123456789', 2, 0, 26);
INSERT INTO tether_floor VALUES (0);
INSERT INTO frames VALUES ('inst-0123456789a0123456789', 1, 1, 'user.message', '2026-01-02T03:04:05.678Z', 'host', 's', 'm1', '', '{"text":"ü"}', 1795554273407);
INSERT INTO frames VALUES ('inst-0123456789a0123456789', 2, 0, 'assistant.done', '2026-01-02T03:04:05.678Z', 'host', 's', 'm2', '', '{"text":"ü"}', 1795554273407);
INSERT INTO watermarks VALUES ('inst-0123456789a0123456789', 'host', 1);
INSERT INTO schedules VALUES ('sched-1', 'inst-0123456789a0123456789', '*/5 * * * 1-5', 'Europe/Berlin', '', '["echo","ü"]', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', 'exec-1', 'exit 3');
INSERT INTO schedules VALUES ('sched-2', 'inst-0123456789a0123456789', '', '', '2026-01-02T03:04:05Z', '["true"]', '2026-01-02T03:04:05.678Z', '2026-01-02T03:04:05.678Z', '', '', '');
INSERT INTO schedule_marks VALUES ('inst-0123456789a0123456789', '{"daily":"2026-01-02T03:04:05.678Z"}');
PRAGMA user_version = 5;
