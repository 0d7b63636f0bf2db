package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/message"
)

// columns of a frame, as scanFrame reads them.
const columns = "SELECT seq, type, ts, channel, session, msg_id, payload FROM frames WHERE "

// Frames implements tether.Rows.
func (s *Store) Frames(ctx context.Context, instance string, q message.Query) (message.Page, error) {
	page := message.Page{Covered: q.After}
	var head int64
	// Before the frames: those that come in between are not covered, or are in the page.
	err := s.db.QueryRowContext(ctx, "SELECT seq FROM tethers WHERE instance = ?", instance).Scan(&head)
	if errors.Is(err, sql.ErrNoRows) {
		return page, nil
	}
	if err != nil {
		return page, fmt.Errorf("read frames of %s: %w", instance, err)
	}
	where, args := selection(instance, q)
	frames, whole, err := s.read(ctx, where, args, q.Limit)
	if err != nil {
		return page, fmt.Errorf("read frames of %s: %w", instance, err)
	}
	if q.Before > 0 {
		slices.Reverse(frames)
	}
	page.Frames = frames
	if len(frames) > 0 {
		page.Covered = frames[len(frames)-1].Seq
	}
	if whole && q.Before == 0 {
		page.Covered = max(page.Covered, head)
	}
	return page, nil
}

// selection returns what q asks for in SQL.
func selection(instance string, q message.Query) (string, []any) {
	where, args := []string{"instance = ?", "seq > ?"}, []any{instance, q.After}
	add := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	order := "ASC"
	if q.Before > 0 {
		add("seq < ?", q.Before)
		order = "DESC"
	}
	if q.Channel != "" {
		add("channel = ?", q.Channel)
	}
	if q.Session != "" {
		add("session = ?", q.Session)
	}
	if q.ReplyTo != "" {
		add("reply_to = ?", q.ReplyTo)
	}
	if len(q.Types) > 0 {
		list, _ := json.Marshal(q.Types) // strings
		add("type IN (SELECT value FROM json_each(?))", string(list))
	}
	return strings.Join(where, " AND ") + " ORDER BY seq " + order, args
}

// read returns the first frames of a selection, and whether they are all of it.
func (s *Store) read(ctx context.Context, where string, args []any, limit int) (frames []api.Frame, whole bool, err error) {
	if limit > 0 {
		where, args = where+" LIMIT ?", append(args, limit)
	}
	rows, err := s.db.QueryContext(ctx, columns+where, args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = rows.Close() }() // what is not read is not wanted
	for bytes := 0; rows.Next(); {
		f, err := scanFrame(rows)
		if err != nil {
			return nil, false, err
		}
		if bytes += len(f.Payload); bytes > message.MaxPage && len(frames) > 0 {
			return frames, false, nil
		}
		frames = append(frames, f)
	}
	return frames, limit == 0 || len(frames) < limit, rows.Err()
}

func scanFrame(rows *sql.Rows) (api.Frame, error) {
	f := api.Frame{V: 1}
	var ts, payload string
	if err := rows.Scan(&f.Seq, &f.Type, &ts, &f.Session.Channel, &f.Session.ID, &f.MsgID, &payload); err != nil {
		return f, err
	}
	if payload != "" {
		f.Payload = json.RawMessage(payload)
	}
	if err := parseTime(ts, &f.TS); err != nil {
		return f, fmt.Errorf("frame %d is damaged: %w", f.Seq, err)
	}
	return f, nil
}

// Untaken implements tether.Rows.
func (s *Store) Untaken(ctx context.Context, instance string, limit int) ([]api.Frame, error) {
	frames, _, err := s.read(ctx, `instance = ?1 AND ingress = 1 AND seq > (SELECT taken FROM tethers WHERE instance = ?1) ORDER BY seq`,
		[]any{instance}, limit)
	if err != nil {
		return nil, fmt.Errorf("read what waits for the agent in %s: %w", instance, err)
	}
	return frames, nil
}

// Watermark implements tether.Rows.
func (s *Store) Watermark(ctx context.Context, instance, channel string) (int64, error) {
	var seq int64
	err := s.db.QueryRowContext(ctx, "SELECT seq FROM watermarks WHERE instance = ? AND channel = ?", instance, channel).Scan(&seq)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read a watermark of %s: %w", instance, err)
	}
	return seq, nil
}

// RaiseWatermark implements tether.Rows.
func (s *Store) RaiseWatermark(ctx context.Context, instance, channel string, seq int64) (int64, error) {
	err := s.db.QueryRowContext(ctx, `INSERT INTO watermarks (instance, channel, seq)
		VALUES (?1, ?2, min(?3, coalesce((SELECT seq FROM tethers WHERE instance = ?1), 0)))
		ON CONFLICT (instance, channel) DO UPDATE SET seq = max(seq, excluded.seq) RETURNING seq`, instance, channel, seq).Scan(&seq)
	if err != nil {
		return 0, fmt.Errorf("store a watermark of %s: %w", instance, err)
	}
	return seq, nil
}
