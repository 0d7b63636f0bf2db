package webhook

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/internal/gateway"
	"github.com/xfeldman/aegisvm/internal/gateway/gatewaytest"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// FuzzTake: whatever is posted is answered with a status that says what to do, and without
// the token nothing of it goes on.
func FuzzTake(f *testing.F) {
	for _, body := range []string{
		`{"session":"s","id":"1","text":"hello","images":["aGk="]}`, `{"cancel":true}`, `{"text":""}`, `{"session":"../x","text":"y"}`,
		`{"images":["!"]}`, `{"text":"x","user":{"id":"7","name":"n"}}`, `[`, `null`, `{"text":"x"}{"text":"y"}`,
	} {
		f.Add("Bearer sesame", body)
		f.Add("Bearer ", body)
	}
	dir := f.TempDir()
	c := &channel{token: secret.New("sesame")}
	f.Fuzz(func(t *testing.T, auth, body string) {
		d := gatewaytest.New()
		line := gateway.NewLine(slog.New(slog.DiscardHandler), d, "agent", "webhook", dir)
		r := httptest.NewRequest(http.MethodPost, "/v1/messages", strings.NewReader(body))
		r.Header.Set("Authorization", auth)
		w := httptest.NewRecorder()
		c.take(w, r, line)
		switch w.Code {
		case http.StatusAccepted, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable:
			if auth != "Bearer sesame" {
				t.Fatalf("authorization %q was taken: %d", auth, w.Code)
			}
		case http.StatusUnauthorized:
		default:
			t.Fatalf("status %d for %q", w.Code, body)
		}
		if n := len(d.Received()); n > 0 != (w.Code == http.StatusAccepted) {
			t.Fatalf("status %d, and the agent has %d messages of %q", w.Code, n, body)
		}
	})
}
