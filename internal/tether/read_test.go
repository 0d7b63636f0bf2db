package tether

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/message"
)

var all message.Query

func after(seq int64) message.Query { return message.Query{After: seq} }

func (w *world) poll(q message.Query) api.TetherPage {
	w.t.Helper()
	page, err := w.Poll(context.Background(), "a", q, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return page
}

func texts(frames []api.Frame) []string {
	out := []string{}
	for _, f := range frames {
		out = append(out, textOf(f))
	}
	return out
}

func TestPollSelects(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	asked := w.send(b, text("one", "q1"))                                                                                              // 1
	w.send(b, text("two", "q2"))                                                                                                       // 2
	w.emit(b, done("one", "a1", asked.MsgID))                                                                                          // 3
	w.emit(b, done("two", "a2", "msg-other"))                                                                                          // 4
	w.emit(b, api.Frame{Type: api.FramePresence, Session: api.Session{Channel: "ui", ID: "one"}, Payload: []byte(`{"state":"idle"}`)}) // 5
	for name, c := range map[string]struct {
		q    message.Query
		want []string
		next int64
	}{
		"all":       {all, []string{"q1", "q2", "a1", "a2", ""}, 5},
		"session":   {message.Query{Session: "one"}, []string{"q1", "a1", ""}, 5},
		"channel":   {message.Query{Session: "one", Channel: "host"}, []string{"q1", "a1"}, 5},
		"types":     {message.Query{Types: []api.FrameType{api.FrameDone, api.FrameAck}}, []string{"a1", "a2"}, 5},
		"reply":     {message.Query{ReplyTo: asked.MsgID}, []string{"a1"}, 5},
		"after":     {after(3), []string{"a2", ""}, 5},
		"limit":     {message.Query{Limit: 2}, []string{"q1", "q2"}, 2},
		"before":    {message.Query{Before: 4, Limit: 2}, []string{"q2", "a1"}, 3},
		"none left": {after(5), []string{}, 5},
		"no match":  {message.Query{Session: "three"}, []string{}, 5},
	} {
		page := w.poll(c.q)
		if got := texts(page.Frames); !slices.Equal(got, c.want) || page.NextSeq != c.next {
			t.Errorf("%s: %q, next %d; want %q, %d", name, got, page.NextSeq, c.want, c.next)
		}
		if page.TimedOut != (len(c.want) == 0) {
			t.Errorf("%s: timed out: %v", name, page.TimedOut)
		}
	}
}

// TestPollWaits has polls wait for frames of their sessions while others come.
func TestPollWaits(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	var wg sync.WaitGroup
	for _, session := range []string{"s0", "s1", "s2"} {
		wg.Go(func() {
			next := int64(0)
			for i := range 50 {
				page, err := w.Poll(context.Background(), "a", message.Query{Session: session, After: next, Limit: 1}, MaxWait)
				if err != nil || len(page.Frames) != 1 || textOf(page.Frames[0]) != strconv.Itoa(i) {
					t.Errorf("%s, frame %d: %+v, %v", session, i, page, err)
					return
				}
				next = page.NextSeq
			}
		})
	}
	for i := range 50 {
		for _, session := range []string{"s0", "s1", "s2"} {
			w.emit(b, done(session, strconv.Itoa(i), ""))
		}
	}
	wg.Wait()
}

func TestPollTimesOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		begin := time.Now()
		page, err := w.Poll(t.Context(), "a", all, time.Hour)
		if err != nil || !page.TimedOut || time.Since(begin) != MaxWait {
			t.Errorf("%+v, %v after %v", page, err, time.Since(begin))
		}
		w.emit(b, done("s", "x", ""))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Poll(ctx, "a", after(1), MaxWait); err == nil {
			t.Error("a poll without a client goes on")
		}
	})
}

// TestDeltas reads deltas between frames, live and by a stream that begins in the middle.
func TestDeltas(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	sent := w.send(b, text("s", "q"))
	polled := make(chan api.TetherPage, 1)
	go func() {
		page, err := w.Poll(context.Background(), "a", message.Query{After: sent.IngressSeq, Types: []api.FrameType{api.FrameDelta}}, MaxWait)
		if err != nil {
			t.Error(err)
		}
		polled <- page
	}()
	for n := 0; n == 0; { // until the poll has begun, deltas pass it by
		select {
		case page := <-polled:
			if n = len(page.Frames); n == 0 || page.Frames[0].Type != api.FrameDelta || page.Frames[0].Seq != 0 {
				t.Errorf("polled %+v", page)
				n = 1
			}
		default:
			w.emit(b, part("other", "-"))
		}
	}
	w.emit(b, part("s", "he"))
	w.emit(b, part("s", "llo"))
	w.emit(b, done("s", "hello", sent.MsgID))
	w.emit(b, part("s", "next"))
	frames, err := w.Stream(t.Context(), "a", message.Query{Session: "s", After: sent.IngressSeq}, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for f, err := range frames {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, textOf(f))
		if len(got) == 4 {
			w.emit(b, part("s", "live"))
		}
		if len(got) == 5 {
			break
		}
	}
	if want := []string{"he", "llo", "hello", "next", "live"}; !slices.Equal(got, want) {
		t.Errorf("streamed %q, want %q", got, want)
	}
	if page := w.poll(all); len(page.Frames) != 2 {
		t.Errorf("stored: %q", texts(page.Frames))
	}
}

// TestSlowReader has a reader stand still while much comes: nobody waits for it, it misses
// no frame, and of the deltas it gets the newest.
func TestSlowReader(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	frames, err := w.Stream(t.Context(), "a", all, true)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		for j := range 10 {
			w.emit(b, part("s", strconv.Itoa(i*10+j)))
		}
		w.emit(b, done("s", "d"+strconv.Itoa(i), ""))
	}
	dones, deltas, last := 0, 0, -1
	for f, err := range frames {
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == api.FrameDelta {
			n, _ := strconv.Atoi(textOf(f))
			if n <= last || n/10 != dones {
				t.Fatalf("delta %d after %d and %d frames", n, last, dones)
			}
			last = n
			deltas++
			continue
		}
		if textOf(f) != "d"+strconv.Itoa(dones) {
			t.Fatalf("frame %d is %q", dones, textOf(f))
		}
		if dones++; dones == 300 {
			break
		}
	}
	if deltas != 1024 || last != 2999 {
		t.Errorf("%d deltas up to %d", deltas, last)
	}
}

func TestStreamFromNowOn(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	w.emit(b, part("s", "old delta"))
	w.emit(b, done("s", "old", ""))
	frames, err := w.Stream(t.Context(), "a", all, true)
	if err != nil {
		t.Fatal(err)
	}
	w.emit(b, done("s", "new", ""))
	for f, err := range frames {
		if err != nil || textOf(f) != "new" {
			t.Errorf("%+v, %v", f, err)
		}
		break
	}
}

// TestClose ends readers with the daemon.
func TestClose(t *testing.T) {
	w := newWorld(t)
	w.add(instance.Running)
	failed := make(chan error, 2)
	go func() {
		_, err := w.Poll(context.Background(), "a", all, MaxWait)
		failed <- err
	}()
	go func() {
		frames, err := w.Stream(context.Background(), "a", all, true)
		if err != nil {
			failed <- err
			return
		}
		for _, err := range frames {
			failed <- err
		}
	}()
	w.Close()
	for range 2 {
		if err := <-failed; fault.KindOf(err) != fault.Unavailable {
			t.Errorf("ends with %v", err)
		}
	}
	if _, err := w.Send(t.Context(), "a", text("s", "x")); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("after the end: %v", err)
	}
}

func TestWatermarks(t *testing.T) {
	w := newWorld(t)
	b := w.add(instance.Running)
	for range 3 {
		w.emit(b, done("s", "x", ""))
	}
	for _, c := range []struct{ set, want int64 }{{2, 2}, {1, 2}, {3, 3}, {99, 3}} {
		got, err := w.SetWatermark(t.Context(), "a", api.Watermark{Channel: "ui", Seq: c.set})
		if err != nil || got.Seq != c.want {
			t.Errorf("set %d: %+v, %v", c.set, got, err)
		}
	}
	w.shut()
	w.open()
	for channel, want := range map[string]int64{"ui": 3, "telegram": 0} {
		if got, err := w.Watermark(t.Context(), "a", channel); err != nil || got.Seq != want {
			t.Errorf("%s: %+v, %v", channel, got, err)
		}
	}
	if _, err := w.Watermark(t.Context(), "a", "mail"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("of no channel: %v", err)
	}
}

// meddler is rows that do something right ahead of a read, or behind it, once.
type meddler struct {
	Rows

	ahead, behind func()
}

func (m *meddler) Frames(ctx context.Context, id string, q message.Query) (message.Page, error) {
	once(&m.ahead)
	page, err := m.Rows.Frames(ctx, id, q)
	once(&m.behind)
	return page, err
}

func once(do *func()) {
	if f := *do; f != nil {
		*do = nil
		f()
	}
}

// TestBetweenLookAndWait stores a frame when a reader has looked and does not wait yet. It
// gets it at once: time in a bubble goes on only if all wait.
func TestBetweenLookAndWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		begin := time.Now()
		w.rows = &meddler{Rows: w.rows, behind: func() { w.emit(b, done("s", "polled", "")) }}
		page, err := w.Poll(t.Context(), "a", all, MaxWait)
		if err != nil || len(page.Frames) != 1 || textOf(page.Frames[0]) != "polled" || time.Since(begin) != 0 {
			t.Errorf("%+v, %v after %v", page, err, time.Since(begin))
		}
		frames, err := w.Stream(t.Context(), "a", after(1), false)
		if err != nil {
			t.Fatal(err)
		}
		w.rows = &meddler{Rows: w.rows, behind: func() {
			w.emit(b, part("s", "first"))
			w.emit(b, done("s", "then", ""))
		}}
		var got []string
		for f, err := range frames {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, textOf(f)); len(got) == 2 {
				break
			}
		}
		if !slices.Equal(got, []string{"first", "then"}) || time.Since(begin) != 0 {
			t.Errorf("streamed %q after %v", got, time.Since(begin))
		}
	})
}

// TestWithinALook has an answer begin and end while a reader looks: its delta comes before
// its end, or a chat would take it for the begin of another answer.
func TestWithinALook(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world, b *box) {
		t.Helper()
		frames, err := w.Stream(t.Context(), "a", after(0), false)
		if err != nil {
			t.Fatal(err)
		}
		w.rows = &meddler{Rows: w.rows, ahead: func() {
			w.emit(b, part("s", "a part"))
			w.emit(b, done("s", "the whole", ""))
		}}
		var got []string
		for f, err := range frames {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, textOf(f)); len(got) == 2 {
				break
			}
		}
		if !slices.Equal(got, []string{"a part", "the whole"}) {
			t.Errorf("streamed %q", got)
		}
	})
}
