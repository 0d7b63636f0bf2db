package script

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/daemon"
	"github.com/xfeldman/aegisvm/internal/guest/guesttest"
	"github.com/xfeldman/aegisvm/internal/instance"
	"github.com/xfeldman/aegisvm/internal/tether"
)

// fakeAgent is a program that answers messages: "you said TEXT" in two pieces, or, to one that begins with "work", not before it is cancelled. What it is told it prints.
func fakeAgent(o *daemon.Options) guesttest.Program {
	// The guests of this world share the host's addresses. One that nobody has just now:
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	o.Agents = uint16(ln.Addr().(*net.TCPAddr).Port)
	if err := ln.Close(); err != nil {
		panic(err)
	}
	var made *tether.Tether
	o.Tether = func(t *tether.Tether) { made = t }
	return func(ctx context.Context, x *guesttest.IO) int {
		work, stubborn := map[api.Session]string{}, map[api.Session]bool{}
		srv := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", o.Agents), ReadHeaderTimeout: time.Minute}
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var f api.Frame
			if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			var m api.UserMessage
			_ = json.Unmarshal(f.Payload, &m) // a cancel has none
			_, _ = fmt.Fprintln(x.Stdout, f.Seq, f.Type, m.Text, len(m.Images))
			say := func(t api.FrameType, payload any) { //nolint:contextcheck // it has the request's
				b, _ := json.Marshal(payload) // strings
				_, err := made.Emit(r.Context(), instance.ID(r.Header.Get("Aegis-Instance")), api.Frame{Type: t, Session: f.Session, Payload: b})
				if err != nil {
					_, _ = fmt.Fprintln(x.Stdout, err)
				}
			}
			switch {
			case f.Type == api.FrameCancel && stubborn[f.Session]:
				say(api.FrameDelta, api.Delta{Text: "I go on"})
			case f.Type == api.FrameCancel:
				say(api.FrameDone, api.AssistantMessage{Text: "stopped", ReplyTo: work[f.Session]})
			case len(m.Text) >= 4 && m.Text[:4] == "work":
				work[f.Session] = f.MsgID
				stubborn[f.Session] = m.Text == "work-stubbornly"
				say(api.FrameDelta, api.Delta{Text: "on " + m.Text, ReplyTo: f.MsgID})
			default:
				say(api.FrameDelta, api.Delta{Text: "you said ", ReplyTo: f.MsgID})
				say(api.FrameDone, api.AssistantMessage{Text: "you said " + m.Text, ReplyTo: f.MsgID})
			}
		})
		go func() {
			<-ctx.Done()
			_ = srv.Close()
		}()
		_, _ = fmt.Fprintln(x.Stdout, srv.ListenAndServe())
		return 0
	}
}
