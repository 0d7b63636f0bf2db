package telegramtest

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const me = 7

// call makes a call, and returns its status, its description and the id of its message.
func call(s *Server, method string, params url.Values) (status int, text string, id int) {
	r := httptest.NewRequest(http.MethodPost, "/bot"+Token+"/"+method, strings.NewReader(params.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return do(s, r)
}

func do(s *Server, r *http.Request) (status int, text string, id int) {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var out struct {
		Description string          `json:"description"`
		Result      json.RawMessage `json:"result"`
	}
	_ = json.Unmarshal(w.Body.Bytes(), &out)
	var m struct {
		ID int `json:"message_id"`
	}
	_ = json.Unmarshal(out.Result, &m) // other results have none
	return w.Code, out.Description, m.ID
}

func message(chat int, text, entities string) url.Values {
	return url.Values{"chat_id": {strconv.Itoa(chat)}, "text": {text}, "entities": {entities}}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Write(me, "hello")
		for _, c := range []struct {
			method string
			params url.Values
			status int
			text   string
		}{
			{"sendMessage", message(99, "x", ""), 400, "chat not found"},
			{"sendMessage", message(me, strings.Repeat("x", 4096), ""), 200, ""},
			{"sendMessage", message(me, strings.Repeat("x", 4097), ""), 400, "too long"},
			{"sendMessage", message(me, strings.Repeat("🎉", 2049), ""), 400, "too long"},
			{"sendMessage", message(me, " \n", ""), 400, "empty"},
			{"sendMessage", message(me, "x", `[{"type":"bold","offset":0,"length":2}]`), 400, "can't parse entities"},
			{"sendMessage", message(me, "x", `[{"type":"bold","offset":0,"length":1}]`), 200, ""},
			{"sendMessage", message(me, "xy", `[{"type":"bold","offset":0,"length":2},{"type":"code","offset":1,"length":1}]`), 400, "can't parse entities"},
			{"editMessageText", url.Values{"chat_id": {"7"}, "message_id": {"1"}, "text": {"x"}}, 400, "can't be edited"},
			{"editMessageText", url.Values{"chat_id": {"7"}, "message_id": {"99"}, "text": {"x"}}, 400, "not found"},
			{"editMessageText", url.Values{"chat_id": {"7"}, "message_id": {"2"}, "text": {strings.Repeat("x", 4096)}}, 400, "not modified"},
			{"editMessageText", url.Values{"chat_id": {"7"}, "message_id": {"2"}, "text": {"y"}}, 200, ""},
			{"getFile", url.Values{"file_id": {"x"}}, 400, "wrong file_id"},
			{"noSuchMethod", nil, 404, "Not Found"},
		} {
			time.Sleep(time.Second)
			if status, text, _ := call(s, c.method, c.params); status != c.status || !strings.Contains(text, c.text) {
				t.Errorf("%s %.60v: %d %q, want %d %q", c.method, c.params, status, text, c.status, c.text)
			}
		}
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		s.Write(me, "hello")
		s.Write(-1, "hello")
		call(s, "sendMessage", message(me, "1", ""))
		if status, text, _ := call(s, "sendMessage", message(me, "2", "")); status != 429 || !strings.Contains(text, "retry after 1") {
			t.Errorf("two at a time: %d %q", status, text)
		}
		for i := range 21 {
			time.Sleep(time.Second)
			want := map[bool]int{true: 200, false: 429}[i < 20]
			if status, _, _ := call(s, "sendMessage", message(-1, "x", "")); status != want {
				t.Errorf("message %d of a group in a minute: %d", i, status)
			}
		}
	})
}

func TestFiles(t *testing.T) {
	s := New()
	s.Write(me, "hello")
	send := func(method, field, caption string, data []byte) (int, string) {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		_ = form.WriteField("chat_id", "7")
		_ = form.WriteField("caption", caption)
		part, _ := form.CreateFormFile(field, "f")
		_, _ = part.Write(data)
		_ = form.Close()
		r := httptest.NewRequest(http.MethodPost, "/bot"+Token+"/"+method, &body)
		r.Header.Set("Content-Type", form.FormDataContentType())
		s.rates = map[int64]*pacer{} // this is not about rates
		status, text, _ := do(s, r)
		return status, text
	}
	png := []byte("\x89PNG\r\n\x1a\n")
	for _, c := range []struct {
		method, field, caption string
		data                   []byte
		status                 int
	}{
		{"sendPhoto", "photo", "", png, 200},
		{"sendPhoto", "photo", strings.Repeat("x", 1025), png, 400},
		{"sendPhoto", "photo", "", []byte("text"), 400},
		{"sendPhoto", "photo", "", append(png, make([]byte, 10<<20)...), 400},
		{"sendDocument", "document", "", append(png, make([]byte, 10<<20)...), 200},
	} {
		if status, text := send(c.method, c.field, c.caption, c.data); status != c.status {
			t.Errorf("%s of %d bytes: %d %q, want %d", c.method, len(c.data), status, text, c.status)
		}
	}
}

func TestTwoPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		first := make(chan int)
		poll := url.Values{"timeout": {"30"}}
		go func() {
			status, _, _ := call(s, "getUpdates", poll)
			first <- status
		}()
		synctest.Wait()
		second := make(chan int)
		go func() {
			status, _, _ := call(s, "getUpdates", poll)
			second <- status
		}()
		if status := <-first; status != http.StatusConflict {
			t.Errorf("the first poll: %d", status)
		}
		id := s.Write(me, "hello")
		if status := <-second; status != 200 || s.Unacknowledged() != 1 {
			t.Errorf("the second poll: %d", status)
		}
		call(s, "getUpdates", url.Values{"offset": {strconv.Itoa(id + 1)}})
		if n := s.Unacknowledged(); n != 0 {
			t.Errorf("%d updates stay", n)
		}
	})
}

func TestTokens(t *testing.T) {
	s := New()
	for path, want := range map[string]int{"/bot4242:wrong/getMe": 401, "/botwrong/getMe": 404, "/bot" + Token + "/getMe": 200} {
		if status, text, _ := do(s, httptest.NewRequest(http.MethodGet, path, nil)); status != want {
			t.Errorf("%s: %d %q, want %d", path, status, text, want)
		}
	}
}
