package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/message"
)

// LoadTethers implements tether.Rows.
func (s *Store) LoadTethers(ctx context.Context) ([]message.Tether, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT t.instance, t.seq,
			(SELECT count(*) FROM frames f WHERE f.instance = t.instance AND f.ingress = 1 AND f.seq > t.taken),
			coalesce((SELECT f.stored_at FROM frames f WHERE f.instance = t.instance ORDER BY f.seq DESC LIMIT 1), 0)
		FROM tethers t ORDER BY t.instance`)
	if err != nil {
		return nil, fmt.Errorf("load tethers: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var out []message.Tether
	for rows.Next() {
		var t message.Tether
		var last int64
		if err := rows.Scan(&t.Instance, &t.Seq, &t.Waiting, &last); err != nil {
			return nil, fmt.Errorf("load tethers: %w", err)
		}
		t.Last = time.UnixMilli(last)
		out = append(out, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load tethers: %w", err)
	}
	return out, nil
}

// AppendFrames implements tether.Rows.
func (s *Store) AppendFrames(ctx context.Context, entries []message.Entry, keep message.Keep) ([]message.Stored, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("store frames: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing is left to roll back after a commit
	out, now, grown := make([]message.Stored, len(entries)), time.Now(), map[string]bool{}
	for i, e := range entries {
		if out[i], err = addEntry(ctx, tx, e, now); err != nil {
			return nil, fmt.Errorf("store a frame of %s: %w", e.Instance, err)
		}
		if out[i].Err == nil && !out[i].Known && e.Frame.Type != "" {
			grown[e.Instance] = true
		}
	}
	for id := range grown {
		if err := trim(ctx, tx, id, keep, now); err != nil {
			return nil, fmt.Errorf("drop old frames of %s: %w", id, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("store frames: %w", err)
	}
	return out, nil
}

// addEntry stores one entry. What is wrong with it alone is in Stored.
func addEntry(ctx context.Context, tx *sql.Tx, e message.Entry, now time.Time) (message.Stored, error) {
	if e.Frame.Type == "" {
		_, err := tx.ExecContext(ctx, "UPDATE tethers SET taken = ? WHERE instance = ? AND taken < ?", e.Taken, e.Instance, e.Taken)
		return message.Stored{Seq: e.Taken}, err
	}
	f, out := e.Frame, message.Stored{}
	err := tx.QueryRowContext(ctx, "SELECT seq FROM frames WHERE instance = ? AND ingress = ? AND msg_id = ?", e.Instance, e.Ingress, f.MsgID).Scan(&out.Seq)
	if out.Known = err == nil; !errors.Is(err, sql.ErrNoRows) {
		return out, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO tethers (instance, seq, taken, bytes) SELECT id, 1, 0, ? FROM instances WHERE id = ?
		ON CONFLICT (instance) DO UPDATE SET seq = seq + 1, bytes = bytes + excluded.bytes RETURNING seq`,
		len(f.Payload), e.Instance).Scan(&out.Seq)
	if errors.Is(err, sql.ErrNoRows) {
		out.Err = fault.New(fault.NotFound, "there is no instance %s that lasts", e.Instance)
		return out, nil
	}
	if err != nil {
		return out, err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO frames
		(instance, seq, ingress, type, ts, channel, session, msg_id, reply_to, payload, stored_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		e.Instance, out.Seq, e.Ingress, string(f.Type), formatTime(f.TS), f.Session.Channel, f.Session.ID, f.MsgID, e.ReplyTo, string(f.Payload), now.UnixMilli())
	return out, err
}

// trim drops the oldest frames of an instance until what is left is within keep.
func trim(ctx context.Context, tx *sql.Tx, id string, keep message.Keep, now time.Time) error {
	var seq, taken, bytes int64
	if err := tx.QueryRowContext(ctx, "SELECT seq, taken, bytes FROM tethers WHERE instance = ?", id).Scan(&seq, &taken, &bytes); err != nil {
		return err
	}
	const old = "instance = ? AND (ingress = 0 OR seq <= ?) AND "
	// Numbers have no gaps but where frames were dropped: a bound of the number is one
	// of the count.
	freed, err := drop(ctx, tx, old+"seq <= ?", id, taken, seq-keep.Frames)
	if err != nil {
		return err
	}
	var cut sql.NullInt64
	if keep.Age > 0 {
		err = tx.QueryRowContext(ctx, "SELECT stored_at FROM frames WHERE instance = ? ORDER BY seq LIMIT 1", id).Scan(&cut)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	if limit := now.Add(-keep.Age).UnixMilli(); cut.Valid && cut.Int64 < limit {
		n, err := drop(ctx, tx, old+"stored_at < ?", id, taken, limit)
		if err != nil {
			return err
		}
		freed += n
	}
	for bytes-freed > keep.Bytes {
		n, err := drop(ctx, tx, "rowid IN (SELECT rowid FROM frames WHERE "+old+"seq < ? ORDER BY seq LIMIT 16)", id, taken, seq)
		if err != nil {
			return err
		}
		if n == 0 { // what is left the agent has not taken
			break
		}
		freed += n
	}
	if freed == 0 {
		return nil
	}
	_, err = tx.ExecContext(ctx, "UPDATE tethers SET bytes = bytes - ? WHERE instance = ?", freed, id)
	return err
}

// drop deletes frames and returns how many bytes of payloads they had.
func drop(ctx context.Context, tx *sql.Tx, where string, args ...any) (int64, error) {
	rows, err := tx.QueryContext(ctx, "DELETE FROM frames WHERE "+where+" RETURNING octet_length(payload)", args...) //nolint:gosec // where is ours
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }() // read to the end, or an error is under way
	var freed int64
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
		freed += n
	}
	return freed, rows.Err()
}

// saveCopy begins the tether of an instance that goes on with another's memory. An agent
// in it drops what has a number that it has seen: so the copy's begin behind all that
// were ever given out.
func (s *Store) saveCopy(ctx context.Context, id string) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO tethers (instance, seq, taken, bytes)
		SELECT ?, max((SELECT seq FROM tether_floor), coalesce((SELECT max(seq) FROM tethers), 0)), 0, 0
		WHERE true ON CONFLICT (instance) DO NOTHING`, id)
	return err
}
