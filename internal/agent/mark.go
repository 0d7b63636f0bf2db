package agent

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/xfeldman/aegisvm/api"
)

// runMark is what all processes of a run carry, and the beginning of the marks of its
// calls: see package process. It is the same for every agent that works on the message.
func runMark(key api.Session, msgID string) string {
	return short(key.Channel + "\x00" + key.ID + "\x00" + msgID)
}

func callMark(key api.Session, msgID, callID string) string {
	return runMark(key, msgID) + "/" + short(callID)
}

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}

func randomID() string { return "msg-" + rand.Text() }
