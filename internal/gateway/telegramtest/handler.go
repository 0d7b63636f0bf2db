package telegramtest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The limits of the real server.
const (
	maxText     = 4096     // UTF-16 units
	maxCaption  = 1024     // UTF-16 units
	maxPhoto    = 10 << 20 // bytes
	maxDocument = 50 << 20 // bytes
	maxDownload = 20 << 20 // bytes, of getFile
)

// cut as a fault's code cuts the connection.
const cut = -1

// request is a call with its parameters.
type request struct {
	*http.Request

	params url.Values
	chat   int64
	file   []byte
}

// failure is an answer that is an error.
type failure struct {
	code  int
	text  string
	retry int
}

func bad(text string) *failure { return &failure{http.StatusBadRequest, "Bad Request: " + text, 0} }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if path, ok := strings.CutPrefix(r.URL.Path, "/file/bot"+Token+"/"); ok {
		s.download(w, path)
		return
	}
	token, method, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/bot"), "/")
	switch {
	case !ok || !strings.Contains(token, ":"):
		reply(w, nil, &failure{http.StatusNotFound, "Not Found", 0})
		return
	case token != Token:
		reply(w, nil, &failure{http.StatusUnauthorized, "Unauthorized", 0})
		return
	}
	req, err := parse(r)
	if err != nil {
		reply(w, nil, bad("can't parse the request: "+err.Error()))
		return
	}
	fault := s.fault(method)
	if fault != nil && !fault.After {
		s.note(method, req.chat, fault.Code)
		fail(w, fault)
		return
	}
	result, failed := s.call(method, req)
	status := http.StatusOK
	if failed != nil {
		status = failed.code
	}
	s.note(method, req.chat, status)
	if fault != nil {
		fail(w, fault)
		return
	}
	reply(w, result, failed)
}

func (s *Server) note(method string, chat int64, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, Call{method, chat, time.Now(), status})
	s.tell()
}

// fault returns the fault that a call has, if any.
func (s *Server) fault(method string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.faults, func(f Fault) bool { return f.Method == method })
	if i < 0 || s.faults[i].Code == cut && method == "getUpdates" {
		return nil // a poll that is to be cut must have begun
	}
	f := s.faults[i]
	if s.faults[i].Times--; s.faults[i].Times <= 0 {
		s.faults = slices.Delete(s.faults, i, i+1)
	}
	return &f
}

func fail(w http.ResponseWriter, f *Fault) {
	if f.Code == cut || f.Code == 0 {
		panic(http.ErrAbortHandler)
	}
	reply(w, nil, &failure{f.Code, f.Text, f.Retry})
}

func parse(r *http.Request) (*request, error) {
	req := &request{Request: r}
	err := r.ParseForm()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
		req.file, err = parseFile(r)
	}
	if err != nil {
		return nil, err
	}
	req.params = r.Form
	req.chat, _ = strconv.ParseInt(r.Form.Get("chat_id"), 10, 64)
	return req, nil
}

// parseFile parses a form with a file, and returns the file's bytes.
func parseFile(r *http.Request) ([]byte, error) {
	if err := r.ParseMultipartForm(maxDocument + 1<<20); err != nil { //nolint:gosec // a test's own
		return nil, err
	}
	for _, field := range []string{"photo", "document"} {
		if f, _, err := r.FormFile(field); err == nil {
			return io.ReadAll(f)
		}
	}
	return nil, nil
}

func (r *request) number(name string) int {
	n, _ := strconv.Atoi(r.params.Get(name))
	return n
}

func reply(w http.ResponseWriter, result any, f *failure) {
	w.Header().Set("Content-Type", "application/json")
	out := map[string]any{"ok": true, "result": result}
	if f != nil {
		out = map[string]any{"ok": false, "error_code": f.code, "description": f.text}
		if f.retry > 0 {
			out["parameters"] = map[string]any{"retry_after": f.retry}
		}
		w.WriteHeader(f.code)
	}
	_ = json.NewEncoder(w).Encode(out)
}

// call makes a call.
func (s *Server) call(method string, r *request) (any, *failure) {
	switch method {
	case "getMe":
		return map[string]any{"id": botID, "is_bot": true, "first_name": "Aegis", "username": BotName}, nil
	case "getUpdates":
		return s.getUpdates(r)
	case "sendMessage", "sendPhoto", "sendDocument", "editMessageText", "editMessageReplyMarkup", "deleteMessage", "sendChatAction":
	case "getFile":
		return s.getFile(r)
	default:
		return nil, &failure{http.StatusNotFound, "Not Found: method not found", 0}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	if _, ok := s.chats[r.chat]; !ok {
		return nil, bad("chat not found")
	}
	if strings.HasPrefix(method, "send") && method != "sendChatAction" || method == "editMessageText" {
		if f := s.pace(r.chat); f != nil {
			return nil, f
		}
	}
	switch method {
	case "sendMessage":
		return s.sendMessage(r)
	case "sendPhoto", "sendDocument":
		return s.sendFile(r, method == "sendPhoto")
	case "editMessageText":
		return s.editText(r)
	case "editMessageReplyMarkup":
		return s.editMarkup(r)
	case "deleteMessage":
		return s.remove(r)
	}
	return true, nil
}
