package httpapi

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/frame"
)

// A notice reaches the client beside the output, and does not end the stream.
func TestNotice(t *testing.T) {
	notice := fault.New(fault.Exhausted, "no memory").WithHint("more")
	body, err := json.Marshal(api.ErrorOf(notice))
	if err != nil {
		t.Fatal(err)
	}
	c, _, _ := serve(t, &stubRunner{main: func(p *program) {
		p.print(frame.Stdout, []byte("before "))
		p.print(frame.Notice, body)
		p.print(frame.Stdout, []byte("after"))
		p.exit(137)
	}})
	var out bytes.Buffer
	var told []*client.Error
	status, err := run(t, c).Stream(t.Context(), client.Streams{
		Stdout: &out, Notice: func(e *client.Error) { told = append(told, e) },
	})
	if status != 137 || err != nil || out.String() != "before after" {
		t.Errorf("status %d, %v, output %q", status, err, &out)
	}
	if len(told) != 1 || told[0].Kind != fault.Exhausted || told[0].Msg != "no memory" || told[0].Hint != "more" {
		t.Errorf("told %+v", told)
	}
	if status, err := run(t, c).Stream(t.Context(), client.Streams{}); status != 137 || err != nil {
		t.Errorf("with nobody to tell: %d, %v", status, err)
	}
}
