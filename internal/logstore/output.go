package logstore

import (
	"slices"

	"github.com/xfeldman/aegisvm/internal/frame"
	"github.com/xfeldman/aegisvm/internal/guestproto"
	"github.com/xfeldman/aegisvm/internal/instance"
)

// output writes an instance's output as records. It implements instance.Log.
type output struct{ *Log }

// Program implements instance.Log.
func (o output) Program(stream frame.Type, data []byte, offset uint64) error {
	return o.put(Record{Stream: stream, Source: instance.FromProgram, Offset: offset}, data)
}

// Skip implements instance.Log.
func (o output) Skip(offset uint64) error {
	return o.Append(Record{Stream: frame.Stdout, Source: instance.FromProgram, Offset: offset})
}

// Exec implements instance.Log.
func (o output) Exec(id guestproto.ExecID, stream frame.Type, data []byte) error {
	return o.put(Record{Stream: stream, Source: instance.FromExec, Exec: id}, data)
}

// System implements instance.Log.
func (o output) System(text string) error {
	return o.put(Record{Stream: frame.Stdout, Source: instance.FromSystem}, []byte(text+"\n"))
}

// End implements instance.Log. A remark of the stream that exit statuses come on is one
// that ends a run.
func (o output) End(text string) error {
	return o.put(Record{Stream: frame.Exit, Source: instance.FromSystem}, []byte(text+"\n"))
}

func (o output) put(r Record, data []byte) error {
	for part := range slices.Chunk(data, maxData) {
		r.Data = part
		if err := o.Append(r); err != nil {
			return err
		}
	}
	return nil
}
