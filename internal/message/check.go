package message

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
)

// Limits of what one frame may hold.
const (
	MaxPayload = 512 << 10 // bytes of a stored frame's payload
	MaxDelta   = 64 << 10  // bytes of a delta's, and of presence and acknowledgements
	MaxImages  = 16
)

// The session of a frame that names none.
const (
	DefaultChannel = "host"
	DefaultSession = "default"
)

// Channels are where conversations are held.
func Channels() []string { return []string{"host", "ui", "telegram", "webhook", "cron"} }

// CheckChannel says what is wrong with the name of a channel that there is not.
func CheckChannel(name string) error {
	if slices.Contains(Channels(), name) {
		return nil
	}
	return fault.New(fault.Invalid, "there is no channel %q", name).WithHint("it is one of: %s", strings.Join(Channels(), ", "))
}

var (
	// A session's id becomes part of a file's name in the guest.
	sessionForm = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._:@+-]{0,127}$`)
	msgIDForm   = regexp.MustCompile(`^[!-~]{1,128}$`)
)

// NewID returns a MsgID that no other frame has.
func NewID() string {
	var r [10]byte
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return "msg-" + hex.EncodeToString(r[:])
}

// form is what is known of a type of frames.
type form struct {
	ingress bool
	live    bool // passed on and not stored
	limit   int  // of the payload
	check   func(payload []byte) (replyTo string, err error)
}

var forms = map[api.FrameType]form{
	api.FrameUserMessage:    {ingress: true, limit: MaxPayload, check: checkUserMessage},
	api.FrameCancel:         {ingress: true, limit: MaxDelta, check: checkCancel},
	api.FramePresence:       {limit: MaxDelta, check: checkPresence},
	api.FrameDelta:          {live: true, limit: MaxDelta, check: checkDelta},
	api.FrameReasoningDelta: {live: true, limit: MaxDelta, check: checkDelta},
	api.FrameDone:           {limit: MaxPayload, check: checkAssistantMessage},
	api.FrameReasoningDone:  {limit: MaxPayload, check: checkAssistantMessage},
	api.FrameAck:            {limit: MaxDelta, check: checkAck},
}

// Types returns the types of frames there are, sorted.
func Types() []api.FrameType {
	var out []api.FrameType
	for t := range forms {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// Live reports whether frames of a type are passed on to those who listen, and not
// stored.
func Live(t api.FrameType) bool { return forms[t].live }

// Ingress completes a frame that a client sends to an agent, and says what is wrong
// with one that cannot be. Clients cannot send frames of the agent's types.
func Ingress(f *api.Frame, now time.Time) error {
	form, ok := forms[f.Type]
	if ok && !form.ingress {
		return fault.New(fault.Invalid, "a frame of type %s comes from the agent and cannot be sent to it", f.Type).
			WithHint("send %s or %s", api.FrameUserMessage, api.FrameCancel)
	}
	if f.Session.Channel == "" {
		f.Session.Channel = DefaultChannel
	}
	if f.Session.ID == "" {
		f.Session.ID = DefaultSession
	}
	_, err := complete(f, now)
	return err
}

// Egress completes a frame that comes from an agent, and says what is wrong with one
// that cannot be. It returns the MsgID that the frame answers, or "".
func Egress(f *api.Frame, now time.Time) (replyTo string, err error) {
	if forms[f.Type].ingress {
		return "", fault.New(fault.Invalid, "a frame of type %s goes to the agent and cannot come from it", f.Type)
	}
	return complete(f, now)
}

func complete(f *api.Frame, now time.Time) (replyTo string, err error) {
	form, ok := forms[f.Type]
	if !ok {
		return "", fault.New(fault.Invalid, "there is no type of frames %q", f.Type)
	}
	if f.V == 0 {
		f.V = 1
	}
	if f.TS.IsZero() {
		f.TS = now
	}
	if f.MsgID == "" {
		f.MsgID = NewID()
	}
	f.TS, f.Seq = f.TS.UTC(), 0
	if string(f.Payload) == "null" {
		f.Payload = nil
	}
	switch {
	case f.V != 1:
		return "", fault.New(fault.Invalid, "frames of version %d are not known", f.V)
	case f.TS.Year() < 1970 || f.TS.Year() > 9999:
		return "", fault.New(fault.Invalid, "the frame's time is out of bounds")
	case CheckChannel(f.Session.Channel) != nil:
		return "", CheckChannel(f.Session.Channel)
	case !sessionForm.MatchString(f.Session.ID):
		return "", fault.New(fault.Invalid, "bad session id %.128q", f.Session.ID).
			WithHint("it has letters, digits and -_.:@+, does not begin with a dot, and is at most 128 long")
	case !msgIDForm.MatchString(f.MsgID):
		return "", fault.New(fault.Invalid, "bad msg_id %.128q", f.MsgID).WithHint("it has 1 to 128 visible ASCII characters")
	case len(f.Payload) > form.limit:
		return "", fault.New(fault.TooLarge, "a payload of %d KB is too large for a %s", len(f.Payload)>>10, f.Type).
			WithHint("keep it under %d KB; files go through the workspace", form.limit>>10)
	case !utf8.Valid(f.Payload):
		return "", fault.New(fault.Invalid, "the payload is not UTF-8")
	}
	if replyTo, err = form.check(f.Payload); err != nil {
		return "", fault.Wrap(fault.Invalid, err, "the payload of a %s", f.Type)
	}
	if replyTo != "" && !msgIDForm.MatchString(replyTo) {
		return "", fault.New(fault.Invalid, "bad reply_to %.128q", replyTo)
	}
	return replyTo, nil
}

// read decodes a payload. Fields that are not known are left to who reads it later.
func read(payload []byte, out any) error {
	if len(payload) == 0 {
		return errors.New("it has none")
	}
	return json.Unmarshal(payload, out)
}

func checkUserMessage(payload []byte) (string, error) {
	var m api.UserMessage
	if err := read(payload, &m); err != nil {
		return "", err
	}
	if m.Text == "" && len(m.Images) == 0 {
		return "", errors.New("it has neither text nor images")
	}
	return "", checkImages(m.Images)
}

func checkCancel(payload []byte) (string, error) {
	if len(payload) == 0 {
		return "", nil
	}
	var m map[string]json.RawMessage
	return "", read(payload, &m)
}

func checkPresence(payload []byte) (string, error) {
	var m api.Presence
	if err := read(payload, &m); err != nil {
		return "", err
	}
	if m.State == "" || len(m.State) > 64 {
		return "", errors.New("it has no state")
	}
	return "", nil
}

func checkDelta(payload []byte) (string, error) {
	var m api.Delta
	err := read(payload, &m)
	return m.ReplyTo, err
}

func checkAssistantMessage(payload []byte) (string, error) {
	var m api.AssistantMessage
	if err := read(payload, &m); err != nil {
		return "", err
	}
	return m.ReplyTo, checkImages(m.Images)
}

func checkAck(payload []byte) (string, error) {
	var m api.Ack
	if err := read(payload, &m); err != nil {
		return "", err
	}
	if m.ReplyTo == "" {
		return "", errors.New("it has no reply_to")
	}
	return m.ReplyTo, nil
}

// checkImages holds pictures to what a name of a file in the folder of blobs can be.
func checkImages(all []api.Picture) error {
	if len(all) > MaxImages {
		return fmt.Errorf("%d images are too many: at most %d", len(all), MaxImages)
	}
	for _, p := range all {
		if p.Blob == "" || len(p.Blob) > 256 || path.Base(p.Blob) != p.Blob || p.Blob == ".." || p.Blob == "." || strings.ContainsFunc(p.Blob, isControl) {
			return fmt.Errorf("%.256q names no picture: post it to blob first", p.Blob)
		}
		if len(p.MediaType) > 128 || p.Size < 0 || p.Size > api.MaxWorkspaceFile {
			return fmt.Errorf("the picture %s has a bad media type or size", p.Blob)
		}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
