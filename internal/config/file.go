package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/xfeldman/aegisvm/internal/fault"
)

// entry is one line of the file that sets something.
type entry struct {
	key, value string
	origin     Origin
}

// parse returns what a file says, in its order. It uses the syntax tree, which
// knows the lines: a person is told where the mistake is, and `config show` where a
// value comes from.
func parse(path string, data []byte) ([]entry, error) {
	if err := valid(path, data); err != nil {
		return nil, err
	}
	p := unstable.Parser{}
	p.Reset(data)
	var all []entry
	for p.NextExpression() {
		x := p.Expression()
		key, where := name(&p, path, x)
		switch x.Kind { //nolint:exhaustive // the other kinds are no expressions
		case unstable.KeyValue:
			if _, ok := find(key); !ok {
				return nil, unknown(key, where)
			}
			v := x.Value()
			switch v.Kind { //nolint:exhaustive // the other kinds are no single values
			case unstable.String, unstable.Integer, unstable.Float:
				all = append(all, entry{key, string(v.Data), where})
			default:
				return nil, fault.New(fault.Invalid, "%s: %s takes a string or a number", where, key).
					WithHint("%s: %s", key, Doc(key))
			}
		case unstable.Table, unstable.ArrayTable:
			return nil, unknown("["+key+"]", where)
		}
	}
	return all, p.Error()
}

// valid refuses what is not TOML, keys that are set twice included.
func valid(path string, data []byte) error {
	err := toml.Unmarshal(data, &map[string]any{})
	if err == nil {
		return nil
	}
	where := path
	if de, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := de.Position()
		where = fmt.Sprintf("%s:%d", path, row)
	}
	return fault.New(fault.Invalid, "%s: %s", where, strings.TrimPrefix(err.Error(), "toml: ")).
		WithHint("the file has lines such as: memory = \"1G\"")
}

// name returns an expression's whole key and its place.
func name(p *unstable.Parser, path string, x *unstable.Node) (string, Origin) {
	var parts []string
	line := 0
	for it := x.Key(); it.Next(); {
		n := it.Node()
		parts = append(parts, string(n.Data))
		line = p.Shape(n.Raw).Start.Line
	}
	return strings.Join(parts, "."), Origin(fmt.Sprintf("%s:%d", path, line))
}
