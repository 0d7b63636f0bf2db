package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/strictjson"
)

// maxConfig bounds gateway.json, in bytes.
const maxConfig = 1 << 20

// config is gateway.json: one section for each channel, by its kind's name.
type config map[string]json.RawMessage

// readConfig reads the file at path. One that is not there configures nothing.
func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fault.New(fault.TooLarge, "%s has more than %d bytes", path, maxConfig)
	}
	return b, err
}

// parseConfig decodes gateway.json.
func parseConfig(b []byte, kinds []Kind) (config, error) {
	conf := config{}
	if len(bytes.TrimSpace(b)) == 0 {
		return conf, nil
	}
	if err := json.Unmarshal(b, &conf); err != nil {
		return nil, fault.New(fault.Invalid, "gateway.json: %v", strictjson.Explain(b, err)).
			WithHint(`it is JSON, such as {"telegram": {"bot_token_secret": "TELEGRAM_BOT_TOKEN", "allowed_chats": [123456789]}}`)
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	for name := range conf {
		if !slices.Contains(names, name) {
			return nil, fault.New(fault.Invalid, "gateway.json: there is no channel %.40q", name).
				WithHint("there are: %s", strings.Join(names, ", "))
		}
	}
	return conf, nil
}

// Decode decodes a section of gateway.json into v, strictly: keys that v does not have
// are errors.
func Decode(section json.RawMessage, v any) error {
	if err := strictjson.Decode(section, v); err != nil {
		return fault.New(fault.Invalid, "gateway.json: %v", strictjson.Explain(bytes.TrimSpace(section), err)).WithHint("docs/GATEWAY.md lists the keys")
	}
	return nil
}

// fingerprint is equal for sections that say the same with the same secrets.
func fingerprint(section json.RawMessage, stored map[string]string) string {
	var out bytes.Buffer
	if err := json.Compact(&out, section); err != nil {
		return string(section)
	}
	var keys map[string]any
	if err := json.Unmarshal(section, &keys); err != nil {
		return string(section)
	}
	var named []string
	for key, v := range keys {
		if name, ok := v.(string); ok && strings.HasSuffix(key, "_secret") {
			named = append(named, name)
		}
	}
	slices.Sort(named)
	for _, name := range named {
		fmt.Fprintf(&out, "\n%q=%q", name, stored[name])
	}
	return out.String()
}
