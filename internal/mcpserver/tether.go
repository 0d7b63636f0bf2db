package mcpserver

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// channel is where models hold their conversations with agents.
const channel = "host"

// maxPictures bounds how many pictures of an answer a model gets to see.
const maxPictures = 4

// pictureInput is a picture for an agent.
type pictureInput struct {
	Path      string `json:"path,omitempty" jsonschema:"file of the user's machine (PNG, JPEG, GIF or WebP)"`
	Data      string `json:"data,omitempty" jsonschema:"the file itself, in base64, in the place of path"`
	MediaType string `json:"media_type,omitempty" jsonschema:"not needed"`
}

type sendInput struct {
	Instance  ref            `json:"instance" jsonschema:"handle or id of the instance that the agent is in"`
	Text      string         `json:"text" jsonschema:"the message"`
	Images    []pictureInput `json:"images,omitempty" jsonschema:"pictures that go with it"`
	SessionID string         `json:"session_id,omitempty" jsonschema:"the conversation; others are separate"`
}

type sendOutput struct {
	MsgID      string `json:"msg_id"`
	SessionID  string `json:"session_id"`
	IngressSeq int64  `json:"ingress_seq" jsonschema:"after_seq of the tether_read that waits for the answer"`
}

func (o sendOutput) text() string {
	return fmt.Sprintf("sent (msg_id %s); wait for the answer: tether_read with session_id %q and after_seq %d", o.MsgID, o.SessionID, o.IngressSeq)
}

type receiveInput struct {
	Instance  ref      `json:"instance" jsonschema:"handle or id of the instance that the agent is in"`
	SessionID string   `json:"session_id,omitempty" jsonschema:"the conversation"`
	AfterSeq  int64    `json:"after_seq,omitempty" jsonschema:"only frames behind this one: ingress_seq of tether_send, or next_seq of the last tether_read"`
	Limit     int      `json:"limit,omitempty" jsonschema:"how many frames at most, up to 200"`
	WaitMS    int64    `json:"wait_ms,omitempty" jsonschema:"how long to wait for the first frame, up to 30000; 0 does not wait"`
	Types     []string `json:"types,omitempty" jsonschema:"only frames of these types; [\"assistant.done\"] are the answers"`
}

type frame struct {
	Seq     int64           `json:"seq,omitempty"`
	Type    string          `json:"type"`
	TS      time.Time       `json:"ts"`
	MsgID   string          `json:"msg_id"`
	Payload json.RawMessage `json:"payload,omitempty"`
}

type receiveOutput struct {
	Frames   []frame `json:"frames"`
	NextSeq  int64   `json:"next_seq" jsonschema:"after_seq of the next tether_read"`
	TimedOut bool    `json:"timed_out" jsonschema:"nothing came within wait_ms: read again"`
}

func (o receiveOutput) text() string {
	var b strings.Builder
	for _, f := range o.Frames {
		fmt.Fprintf(&b, "%d %s: %s\n", f.Seq, f.Type, wording(f.Payload))
	}
	if o.TimedOut {
		b.WriteString("nothing came yet; ")
	}
	fmt.Fprintf(&b, "next: after_seq %d", o.NextSeq)
	return b.String()
}

// wording is the text of a payload, or all of it where there is none.
func wording(payload json.RawMessage) string {
	var m struct {
		Text, State, Error string
		Images             []api.Picture
	}
	if json.Unmarshal(payload, &m) != nil {
		return string(payload)
	}
	said := slices.DeleteFunc([]string{m.Text, m.State}, func(s string) bool { return s == "" })
	if m.Error != "" {
		said = append(said, "(error: "+m.Error+")")
	}
	for _, p := range m.Images {
		said = append(said, fmt.Sprintf("(picture %s, %s)", blobPath(p), p.MediaType))
	}
	if len(said) == 0 {
		return string(payload)
	}
	return strings.Join(said, " ")
}

// blobDir is the folder of the workspace that pictures are kept in.
const blobDir = ".aegis/blobs"

func blobPath(p api.Picture) string { return path.Join("/workspace", blobDir, path.Base(p.Blob)) }

func (s *Server) addTether() {
	add(s, tool[sendInput, sendOutput]{
		name: "tether_send", title: "Message an agent", effect: adds, open: true,
		about: "Send a message to the agent in an instance (kit agent, or any program that speaks tether). The instance wakes for it. " +
			"Returns at once; wait for the answer with tether_read and after_seq set to the ingress_seq returned. A new message in a session ends what the agent was doing there.",
		refine: func(in *jsonschema.Schema) { preset(in, "session_id", `"default"`) },
		do:     s.send,
	})
	add(s, tool[receiveInput, receiveOutput]{
		name: "tether_read", title: "Read an agent's messages", effect: reads,
		about: "Read messages of a conversation with the agent in an instance, waiting for them up to wait_ms. " +
			"assistant.done is a whole answer, status.presence says what the agent does. Go on with after_seq set to next_seq until the answer is there. Pictures in answers come along.",
		refine: func(in *jsonschema.Schema) {
			zero, one, frames, wait := 0.0, 1.0, 200.0, 30000.0
			preset(in, "session_id", `"default"`)
			preset(in, "limit", "50")
			in.Properties["limit"].Minimum, in.Properties["limit"].Maximum = &one, &frames
			in.Properties["wait_ms"].Minimum, in.Properties["wait_ms"].Maximum = &zero, &wait
			in.Properties["after_seq"].Minimum = &zero
		},
		do: s.receive,
	})
}

func (s *Server) send(ctx context.Context, _ *call, in sendInput) (out sendOutput, err error) {
	msg := api.UserMessage{Text: in.Text}
	for i, p := range in.Images {
		b, err := p.bytes()
		if err != nil {
			return out, fmt.Errorf("image %d: %w", i+1, err)
		}
		blob, err := s.api.PutBlob(ctx, string(in.Instance), b)
		if err != nil {
			return out, fmt.Errorf("image %d: %w", i+1, err)
		}
		msg.Images = append(msg.Images, pictureOf(blob))
	}
	payload, err := json.Marshal(msg)
	if err != nil {
		return out, err
	}
	sent, err := s.api.TetherSend(ctx, string(in.Instance), api.Frame{
		V: 1, Type: api.FrameUserMessage, TS: time.Now().UTC(), Session: api.Session{Channel: channel, ID: in.SessionID}, Payload: payload,
	})
	return sendOutput(sent), err
}

func pictureOf(b api.Blob) api.Picture {
	return api.Picture{MediaType: b.MediaType, Blob: b.Blob, Size: b.Size}
}

// bytes returns the file of a picture. What it is the daemon finds out.
func (p pictureInput) bytes() ([]byte, error) {
	switch {
	case p.Path != "" && p.Data != "" || p.Path == "" && p.Data == "":
		return nil, fault.New(fault.Invalid, "give either path or data")
	case p.Data != "":
		b, err := base64.StdEncoding.DecodeString(p.Data)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "data is not base64")
		}
		return b, nil
	}
	fi, err := os.Stat(p.Path)
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() > api.MaxWorkspaceFile) {
		return nil, fault.New(fault.Invalid, "%s is no file, or one of over %d MB", p.Path, api.MaxWorkspaceFile>>20)
	}
	b, err := os.ReadFile(p.Path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the picture").WithHint("give the absolute path of a file that is on the user's machine")
	}
	return b, nil
}

func (s *Server) receive(ctx context.Context, c *call, in receiveInput) (receiveOutput, error) {
	q := client.TetherQuery{
		Session: api.Session{Channel: channel, ID: in.SessionID}, After: in.AfterSeq, Limit: in.Limit,
		Wait: time.Duration(in.WaitMS) * time.Millisecond,
	}
	for _, t := range in.Types {
		q.Types = append(q.Types, api.FrameType(t))
	}
	c.progress.say("waiting for %s", in.Instance)
	page, err := s.api.TetherPoll(ctx, string(in.Instance), q)
	out := receiveOutput{Frames: []frame{}, NextSeq: page.NextSeq, TimedOut: page.TimedOut}
	for _, f := range page.Frames {
		out.Frames = append(out.Frames, frame{f.Seq, string(f.Type), f.TS, f.MsgID, f.Payload})
		if f.Type == api.FrameDone {
			s.show(ctx, c, string(in.Instance), f.Payload)
		}
	}
	return out, err
}

// show adds the pictures of an answer, as far as there is room. One that cannot be read is
// named in the text all the same.
func (s *Server) show(ctx context.Context, c *call, instance string, payload json.RawMessage) {
	var m api.AssistantMessage
	if json.Unmarshal(payload, &m) != nil {
		return
	}
	for _, p := range m.Images {
		if len(c.more) == maxPictures || p.Size > maxPicture {
			continue
		}
		b, err := s.api.ReadWorkspace(ctx, instance, path.Join(blobDir, path.Base(p.Blob)))
		if err == nil && len(b) <= maxPicture && isPicture(b) {
			c.more = append(c.more, &mcp.ImageContent{Data: b, MIMEType: p.MediaType})
		}
	}
}
