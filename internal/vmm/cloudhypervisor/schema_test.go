package cloudhypervisor

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// published is what upstream's document says of the requests that this driver makes.
//
//go:embed testdata/api-v53.0.json
var published []byte

// schema checks requests.
type schema struct {
	Upstream string
	Requests map[string]struct {
		Method  string
		Success int
		Body    string // the type, "" for none
	}
	Types map[string]struct {
		Required []string
		Fields   map[string]string
	}
}

func readSchema() (*schema, error) {
	var s schema
	err := json.Unmarshal(published, &s)
	return &s, err
}

// check returns what is wrong with a request, or nil, and the status of its success.
func (s *schema) check(method, path string, body []byte) (int, error) {
	name, ok := strings.CutPrefix(path, "/api/v1/")
	r, known := s.Requests[name]
	switch {
	case !ok || !known:
		return 0, fmt.Errorf("%s is not in the document", path)
	case r.Method != method:
		return 0, fmt.Errorf("%s is asked for with %s, not %s", name, method, r.Method)
	case r.Body == "" && len(body) > 0:
		return 0, fmt.Errorf("%s has a body", name)
	case r.Body == "":
		return r.Success, nil
	}
	return r.Success, s.checkJSON(r.Body, body)
}

func (s *schema) checkJSON(kind string, body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	return s.value(kind, kind, v)
}

// value checks a value of a type: an object's, "string", "boolean", "integer", "integer>=N",
// "A|B|C" or "[]" and another.
func (s *schema) value(at, kind string, v any) error {
	if of, list := strings.CutPrefix(kind, "[]"); list {
		all, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s is no list: %v", at, v)
		}
		for i, v := range all {
			if err := s.value(fmt.Sprintf("%s[%d]", at, i), of, v); err != nil {
				return err
			}
		}
		return nil
	}
	base, limit, _ := strings.Cut(kind, ">=")
	switch {
	case base == "integer":
		number, ok := v.(json.Number)
		n, err := number.Int64()
		least, _ := strconv.ParseInt(limit, 10, 64) // 0 without
		if !ok || err != nil || n < least {
			return fmt.Errorf("%s is no %s: %v", at, kind, v)
		}
		return nil
	case kind == "string", kind == "boolean", strings.Contains(kind, "|"):
		text, isText := v.(string)
		_, isBool := v.(bool)
		if (kind == "boolean") != isBool || kind != "boolean" && !isText || strings.Contains(kind, "|") && !slices.Contains(strings.Split(kind, "|"), text) {
			return fmt.Errorf("%s is no %s: %v", at, kind, v)
		}
		return nil
	}
	return s.object(at, kind, v)
}

func (s *schema) object(at, kind string, v any) error {
	t, known := s.Types[kind]
	fields, ok := v.(map[string]any)
	if !known || !ok {
		return fmt.Errorf("%s is no %s: %v", at, kind, v)
	}
	for _, r := range t.Required {
		if _, ok := fields[r]; !ok {
			return fmt.Errorf("%s lacks %s", at, r)
		}
	}
	for name, v := range fields {
		of, known := t.Fields[name]
		if !known {
			return fmt.Errorf("%s.%s is not in the document", at, name)
		}
		if err := s.value(at+"."+name, of, v); err != nil {
			return err
		}
	}
	return nil
}

// TestSchema checks that the check can fail.
func TestSchema(t *testing.T) {
	s, err := readSchema()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Upstream, "v53.0") {
		t.Errorf("it is of %q", s.Upstream)
	}
	good := `{"payload":{"kernel":"k"},"cpus":{"boot_vcpus":1,"max_vcpus":1},"memory":{"size":0,"zones":[{"id":"ram","size":1}]},"disks":[{"id":"d","image_type":"Raw"}]}`
	if status, err := s.check("PUT", "/api/v1/vm.create", []byte(good)); err != nil || status != 204 {
		t.Errorf("%d, %v", status, err)
	}
	for name, c := range map[string]struct{ method, path, body string }{
		"another path":        {"GET", "/api/v2/vmm.ping", ""},
		"unknown request":     {"PUT", "/api/v1/vm.explode", ""},
		"another method":      {"GET", "/api/v1/vm.pause", ""},
		"a body too much":     {"PUT", "/api/v1/vm.pause", "{}"},
		"no body":             {"PUT", "/api/v1/vm.create", ""},
		"no object":           {"PUT", "/api/v1/vm.create", "[]"},
		"required missing":    {"PUT", "/api/v1/vm.create", `{}`},
		"required in a list":  {"PUT", "/api/v1/vm.create", strings.Replace(good, `"id":"ram",`, "", 1)},
		"unknown field":       {"PUT", "/api/v1/vm.create", strings.Replace(good, `"kernel"`, `"kernal"`, 1)},
		"unknown in a list":   {"PUT", "/api/v1/vm.create", strings.Replace(good, `"id":"d"`, `"name":"d"`, 1)},
		"another type":        {"PUT", "/api/v1/vm.create", strings.Replace(good, `"size":0`, `"size":"0"`, 1)},
		"below the least":     {"PUT", "/api/v1/vm.create", strings.Replace(good, `"boot_vcpus":1`, `"boot_vcpus":0`, 1)},
		"none of the choices": {"PUT", "/api/v1/vm.create", strings.Replace(good, `"Raw"`, `"raw"`, 1)},
		"a text for a switch": {"PUT", "/api/v1/vm.restore", `{"source_url":"file:///x","prefault":"no"}`},
	} {
		if _, err := s.check(c.method, c.path, []byte(c.body)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
