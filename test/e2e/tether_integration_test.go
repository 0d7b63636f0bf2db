//go:build integration

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
)

// listener is an agent that prints what it is told, once: the messages that it has taken
// before it drops. It speaks HTTP itself: Python's own server takes most of the time of
// 20,000 messages.
const listener = `
import json, socket, threading
last, lock = 0, threading.Lock()
def serve(conn):
    global last
    with conn, conn.makefile('rb') as requests:
        while requests.readline():
            length = 0
            while (line := requests.readline()) not in (b'\r\n', b''):
                if line.lower().startswith(b'content-length:'):
                    length = int(line[15:])
            frame = json.loads(requests.read(length))
            with lock:
                if frame['seq'] > last:
                    last = frame['seq']
                    print(frame['seq'], frame['session']['id'], frame['payload']['text'], flush=True)
            conn.sendall(b'HTTP/1.1 204 No Content\r\n\r\n')
door = socket.create_server(('127.0.0.1', 7778))
while True:
    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
`

// heard is a line of what an agent printed.
type heard struct {
	seq           int64
	session, text string
}

// heard returns what an agent has printed from message n on, as soon as that is want
// messages. It does not wake the instance.
func (h *host) heard(ref string, want int) []heard {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	var out []heard
	for line, err := range h.client().Logs(ctx, ref, client.LogQuery{Tail: -1, Follow: want > 0}) {
		if err != nil {
			h.t.Fatalf("%s has heard %d messages of %d: %v\n%s", ref, len(out), want, err, h.log())
		}
		if line.Source != "server" {
			continue
		}
		var m heard
		if _, err := fmt.Sscan(line.Line, &m.seq, &m.session, &m.text); err != nil {
			h.t.Fatalf("the agent says %q", line.Line)
		}
		if out = append(out, m); len(out) == want {
			break
		}
	}
	return out
}

func message(session, text string) api.Frame {
	payload, _ := json.Marshal(api.UserMessage{Text: text}) // strings
	return api.Frame{Type: api.FrameUserMessage, Session: api.Session{Channel: "host", ID: session}, Payload: payload}
}

func messageText(f api.Frame) string {
	var m api.UserMessage
	_ = json.Unmarshal(f.Payload, &m) // "" then, which is looked at
	return m.Text
}

// crowd is writers and readers that talk to one instance while its daemon dies.
type crowd struct {
	h        *host
	each     int // messages of a writer
	sessions int
	sent     chan struct{} // one for each message

	mu    sync.Mutex
	acked map[int64]ack
}

type ack struct {
	session string
	at      time.Time
}

// write sends the messages of one writer, each as often as it takes.
func (c *crowd) write(n int) {
	session, last := "s"+strconv.Itoa(n%c.sessions), int64(0)
	for i := range c.each {
		f := message(session, fmt.Sprintf("w%d-%d", n, i))
		f.MsgID = fmt.Sprintf("msg-w%d-%d", n, i)
		for {
			got, err := c.h.client().TetherSend(c.h.t.Context(), "agent", f)
			if err == nil {
				if got.MsgID != f.MsgID || got.IngressSeq <= last {
					c.h.t.Errorf("writer %d: %+v after %d", n, got, last)
				}
				last = got.IngressSeq
				break
			}
			if c.h.t.Context().Err() != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // the daemon is dead, or much waits
		}
		c.mu.Lock()
		if before, twice := c.acked[last]; twice {
			c.h.t.Errorf("seq %d was given out twice: %+v", last, before)
		}
		c.acked[last] = ack{session, time.Now()}
		c.mu.Unlock()
		c.sent <- struct{}{}
	}
}

// read polls for the frames of one session until it has all, and checks that each writer's
// come in order, once, and that no poll ends, or sleeps on, while there is one.
func (c *crowd) read(session string, writers []int) {
	next := map[string]int{}
	for _, w := range writers {
		next["w"+strconv.Itoa(w)] = 0
	}
	left, seq := len(writers)*c.each, int64(0)
	const wait = 20 * time.Second
	for left > 0 {
		begin, after := time.Now(), seq
		page, err := c.h.client().TetherPoll(c.h.t.Context(), "agent", client.TetherQuery{Session: api.Session{ID: session}, After: seq, Wait: wait})
		if err != nil {
			if c.h.t.Context().Err() != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // the daemon is dead
			continue
		}
		for _, f := range page.Frames {
			writer, number, _ := strings.Cut(messageText(f), "-")
			if f.Seq <= seq || f.Session.ID != session || number != strconv.Itoa(next[writer]) {
				c.h.t.Errorf("%s: frame %d %q after %d, want number %d", session, f.Seq, messageText(f), seq, next[writer])
				return
			}
			seq = f.Seq
			next[writer]++
			left--
		}
		if page.TimedOut != (len(page.Frames) == 0) || page.NextSeq < seq {
			c.h.t.Errorf("%s: %d frames, timed out: %v, next %d after %d", session, len(page.Frames), page.TimedOut, page.NextSeq, seq)
		}
		if time.Since(begin) >= wait {
			c.checkSlept(session, after, begin.Add(wait/2))
		}
		seq = max(seq, page.NextSeq)
	}
}

// checkSlept fails if a frame behind seq was stored before a poll was half over that ended
// only with its time.
func (c *crowd) checkSlept(session string, seq int64, before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, a := range c.acked {
		if n > seq && a.session == session && a.at.Before(before) {
			c.h.t.Errorf("%s: a poll behind %d slept past frame %d", session, seq, n)
		}
	}
}

// TestTether has writers and readers talk to an agent while the daemon is killed three
// times. Then a message wakes the agent from its sleep on disk, and copies of it begin
// without history.
func TestTether(t *testing.T) {
	h := newHost(t)
	h.create("agent", []string{"python3", "-uc", listener})
	const writers, sessions = 8, 4
	c := &crowd{h: h, each: stress(250, 2500), sessions: sessions, sent: make(chan struct{}, writers), acked: map[int64]ack{}}
	total := writers * c.each
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() { c.write(n) })
	}
	for s := range sessions {
		wg.Go(func() { c.read("s"+strconv.Itoa(s), []int{s, s + sessions}) })
	}
	for i := range total {
		<-c.sent
		if i%(total/4) == total/8 && i < total*3/4 {
			h.signal(syscall.SIGKILL)
			h.up()
		}
	}
	wg.Wait()
	last := int64(0)
	for i, m := range h.heard("agent", total) {
		c.mu.Lock()
		a, known := c.acked[m.seq]
		c.mu.Unlock()
		if m.seq <= last || !known || a.session != m.session {
			t.Fatalf("the agent's message %d is %+v, after %d", i, m, last)
		}
		last = m.seq
	}
	t.Logf("%d messages, up to seq %d", total, last)

	t.Run("wakes", func(t *testing.T) { h.tetherWakes(t, total, last) })
	t.Run("copies", func(t *testing.T) { h.tetherCopies(t, total+1, last+1) })
	h.ok("instance", "delete", "agent")
}

// tetherWakes sends to an agent that sleeps on disk, and has heard n messages.
func (h *host) tetherWakes(t *testing.T, n int, last int64) {
	h.ok("instance", "stop", "--hibernate", "agent")
	if info, err := h.client().Info(t.Context(), "agent"); err != nil || !info.Hibernated {
		t.Fatalf("%+v, %v", info, err)
	}
	sent, err := h.client().TetherSend(t.Context(), "agent", message("s0", "wake-up"))
	if err != nil || sent.IngressSeq != last+1 {
		t.Fatalf("%+v, %v", sent, err)
	}
	all := h.heard("agent", n+1)
	if m := all[n]; m != (heard{last + 1, "s0", "wake-up"}) {
		t.Errorf("the agent heard %+v", m)
	}
}

// tetherCopies forks an agent that has heard n messages, and takes it back.
func (h *host) tetherCopies(t *testing.T, n int, last int64) {
	h.ok("instance", "snapshot", "agent", "before")
	forks, err := h.client().Fork(t.Context(), "agent", api.ForkRequest{Names: []string{"copy"}})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := h.client().TetherPoll(t.Context(), "copy", client.TetherQuery{}); err != nil || len(page.Frames) != 0 {
		t.Errorf("the copy has %d frames, %v", len(page.Frames), err)
	}
	// Its agent remembers what it has heard, and drops what is not newer.
	sent, err := h.client().TetherSend(t.Context(), "copy", message("s0", "to-the-copy"))
	if err != nil || sent.IngressSeq <= last {
		t.Errorf("%+v, %v", sent, err)
	}
	if m := h.heard("copy", 1)[0]; m.text != "to-the-copy" {
		t.Errorf("the copy heard %+v", m)
	}
	h.ok("instance", "delete", forks[0].Handle)

	for i, text := range []string{"lost", "kept"} {
		sent, err := h.client().TetherSend(t.Context(), "agent", message("s0", text))
		if err != nil || sent.IngressSeq != last+1+int64(i) {
			t.Errorf("%s: %+v, %v", text, sent, err)
		}
		if all := h.heard("agent", n+1+i); all[n+i].text != text {
			t.Errorf("the agent heard %+v", all[n+i])
		}
		if text == "lost" {
			h.ok("instance", "restore", "agent", "before")
		}
	}
	h.ok("snapshot", "delete", "before")
}
