// Command least is the least that an agent in a VM can be, for a floor beside the real
// one's figures: it writes a message down, asks the model about that alone, and passes on
// the first that it says.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
)

// message is what is used of a user's frame.
type message struct {
	MsgID   string          `json:"msg_id"`
	Session json.RawMessage `json:"session"`
	Payload struct {
		Text string `json:"text"`
	} `json:"payload"`
}

const host = "http://127.0.0.1:7777"

func main() {
	notes, err := os.OpenFile("/workspace/notes", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /v1/tether/recv", func(w http.ResponseWriter, r *http.Request) {
		var m message
		err := json.NewDecoder(r.Body).Decode(&m)
		if err == nil {
			_, err = fmt.Fprintln(notes, m.Payload.Text)
		}
		if err == nil {
			err = notes.Sync()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		go answer(m)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:7778", nil)) //nolint:gosec // its one client is the host
}

func answer(m message) {
	resp, err := post("/v1/llm/chat", map[string]any{
		"model": "host:ollama/scripted", "stream": true, "messages": []any{map[string]string{"role": "user", "content": m.Payload.Text}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	text := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var event struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if !ok || json.Unmarshal([]byte(data), &event) != nil || len(event.Choices) == 0 || event.Choices[0].Delta.Content == "" {
			continue
		}
		said := event.Choices[0].Delta.Content
		if text == "" {
			tell(m, "assistant.delta", said)
		}
		text += said
	}
	tell(m, "assistant.done", text)
}

func tell(m message, kind, text string) {
	resp, err := post("/v1/tether/send", map[string]any{
		"v": 1, "type": kind, "session": m.Session, "msg_id": kind + m.MsgID, "payload": map[string]string{"text": text, "reply_to": m.MsgID},
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = resp.Body.Close() // what it says is not read
}

func post(path string, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return http.Post(host+path, "application/json", bytes.NewReader(data)) //nolint:gosec,noctx // the host; as long as the program
}
