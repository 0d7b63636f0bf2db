package telegram

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/gateway/telegramtest"
)

// TestRestartAtAnyTime ends the channel at each tenth of a second of an answer, and begins
// another that knows only what is in its files.
func TestRestartAtAnyTime(t *testing.T) {
	text := strings.Repeat("All work and no play. ", 250) // two messages
	for at := 100 * time.Millisecond; at < 8*time.Second; at += 300 * time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			bubble(t, func(w *world) {
				t := w.t
				reply := w.ask("hello")
				begun := time.Now()
				restarted := false
				tick := func() {
					w.pass(100 * time.Millisecond)
					if !restarted && time.Since(begun) >= at {
						w.stop()
						w.begin()
						restarted = true
					}
				}
				for chunk := range slices.Chunk([]byte(text), 100) {
					w.d.Delta("telegram", mine, reply, string(chunk))
					tick()
				}
				w.d.Done("telegram", mine, reply, text)
				for range 100 {
					tick()
				}
				if got := w.shown(); letters(strings.Join(got, "")) != letters(text) || len(got) != 2 {
					t.Errorf("%d messages: %.60q", len(got), got)
				}
				w.stop()
				w.begin()
				w.pass(time.Minute)
				if n := len(w.shown()); n != 2 {
					t.Errorf("%d messages after another restart", n)
				}
			})
		})
	}
}

// TestRestartBehindALostMessage ends the channel when a message has been sent and nobody
// knows its id yet.
func TestRestartBehindALostMessage(t *testing.T) {
	for _, streamed := range []bool{true, false} {
		t.Run(fmt.Sprint("streamed ", streamed), func(t *testing.T) {
			bubble(t, func(w *world) {
				t := w.t
				w.ask("a message before")
				w.d.Done("telegram", mine, w.reply(), "an answer before")
				w.pass(5 * time.Second)
				reply := w.ask("hello")
				w.tg.Fail(telegramtest.Fault{Method: "sendMessage", Times: 1, After: true})
				if streamed {
					w.d.Delta("telegram", mine, reply, "the ans")
				} else {
					w.d.Done("telegram", mine, reply, "the answer")
				}
				w.pass(400 * time.Millisecond)
				if n := len(w.shown()); n != 2 {
					t.Fatalf("%d messages: the fault did not happen", n)
				}
				w.stop()
				w.tg.Write(me, "a message between")
				w.begin()
				if streamed {
					w.d.Done("telegram", mine, reply, "the answer")
				}
				w.pass(time.Minute)
				if got := w.shown(); !slices.Equal(got, []string{"an answer before", "the answer"}) {
					t.Errorf("shown: %q", got)
				}
				if n := len(w.tg.Messages(me)); n != 5 {
					t.Errorf("%d messages in the chat: %+v", n, w.tg.Deleted(me))
				}
			})
		})
	}
}

// TestAPictureIsThereOnce ends the channel when a picture has been sent and nobody knows.
func TestAPictureIsThereOnce(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.d.Done("telegram", mine, w.ask("hello"), "one")
		w.pass(5 * time.Second)
		w.stop()
		w.begin() // and knows no ids but those in its files
		blob, err := w.d.PutBlob(t.Context(), "", []byte("\x89PNG\r\n\x1a\n picture"))
		if err != nil {
			t.Fatal(err)
		}
		w.tg.Fail(telegramtest.Fault{Method: "sendPhoto", Times: 1, After: true})
		w.d.Done("telegram", mine, "", "", api.Picture{Blob: blob.Blob})
		w.pass(500 * time.Millisecond)
		w.stop()
		w.begin()
		w.pass(time.Minute)
		if got := w.tg.FromBot(me); len(got) != 2 || !got[1].Photo || len(w.tg.Deleted(me)) != 1 {
			t.Errorf("shown: %+v", got)
		}
	})
}

func TestShownButNotMarked(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Done("telegram", mine, reply, "one")
		w.pass(5 * time.Second)
		// The daemon has forgotten how far the channel had read.
		w.d.Forget("telegram")
		w.stop()
		w.begin()
		w.pass(time.Minute)
		if got := w.shown(); !slices.Equal(got, []string{"one"}) || w.d.Mark("telegram") != w.d.Last() {
			t.Errorf("shown: %q, watermark %d", got, w.d.Mark("telegram"))
		}
	})
}

func TestTheDaemonComesBack(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		reply := w.ask("hello")
		w.d.Delta("telegram", mine, reply, "half of ")
		w.pass(3 * time.Second)
		w.d.Down(true)
		w.pass(30 * time.Second)
		w.d.Down(false)
		w.pass(time.Minute)
		w.d.Delta("telegram", mine, reply, "the end of it")
		w.pass(3 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"half of"}) {
			t.Errorf("a gap is shown: %q", got)
		}
		w.d.Done("telegram", mine, reply, "half of it and the end of it")
		w.pass(3 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"half of it and the end of it"}) {
			t.Errorf("shown: %q", got)
		}
	})
}

func TestAnsweredBeforeTheChannelFirstRead(t *testing.T) {
	bubble(t, func(w *world) {
		t := w.t
		w.tg.Write(me, "hello")
		w.stop()
		w.d.Done("telegram", mine, "", "an answer that waited")
		w.begin()
		w.pass(5 * time.Second)
		if got := w.shown(); !slices.Equal(got, []string{"an answer that waited"}) {
			t.Errorf("shown: %q", got)
		}
	})
}
