package guestproto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/xfeldman/aegisvm/internal/frame"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with the file of version 1 of the protocol. These files do
// not change: saved machines speak what stands in them.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "v1", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %s\nwant %s", name, got, want)
	}
}

func exampleMagic() (m Magic) {
	for i := range m {
		m[i] = byte(i + 1)
	}
	return m
}

func TestGoldenOpening(t *testing.T) {
	var n Nonce
	for i := range n {
		n[i] = byte(0xf0 + i)
	}
	golden(t, "opening", []byte(hex.Dump(Opening(exampleMagic(), n))))
}

func TestGoldenMessages(t *testing.T) {
	magic := exampleMagic()
	for _, c := range []struct {
		name string
		msg  Message
		body any
	}{
		{"stream_control", Message{Type: TypeStream}, StreamHeader{Kind: StreamControl}},
		{"stream_attach", Message{Type: TypeStream}, StreamHeader{Kind: StreamAttach, Exec: "program", Offset: 4096}},
		{"stream_dial", Message{Type: TypeStream}, StreamHeader{Kind: StreamDial, Addr: "127.0.0.1:80"}},
		{"stream_reply", Message{Type: TypeStream}, StreamReply{Offset: 4096, Stdin: 17}},
		{"hello", Message{ID: 1, Type: TypeHello}, Hello{
			MinVersion: 1, Version: 1, Rekey: &magic,
			Owned: []Owned{{Exec: "program", Offset: 12}},
			Identity: &Identity{
				Instance: "inst-1", Hostname: "box", MachineID: "0123456789abcdef0123456789abcdef",
				BootID: "2b1d2f0e-0000-4000-8000-000000000000", Clone: true, Nameservers: []string{"192.168.127.1"},
			},
			Thaw:        &Thaw{UnixNano: 1700000000000000000, Entropy: []byte("entropy")},
			Prepare:     true,
			DiskBytes:   8 << 30,
			LonelyOffMS: 30000,
		}},
		{"welcome", Message{ID: 1, Type: TypeHello}, Welcome{
			Version: 1, Harness: "1.2.3", Abilities: []string{"dial"}, BootNonce: "00ff",
			Execs: []Exec{{ID: "program", Running: true, End: 99}},
		}},
		{"error", Message{ID: 2, Type: TypeSpawn, Error: &Error{Code: CodeNoCommand, Msg: "foo: command not found"}}, nil},
		{"spawn", Message{ID: 2, Type: TypeSpawn}, Spawn{
			ID: "exec-1", Command: []string{"sh", "-c", "exit 7"}, Env: []string{"A=b"}, Workdir: "/tmp", User: "1000:1000",
			TTY: &frame.Winsize{Cols: 80, Rows: 24}, Stdin: true, Memory: 65536, Ring: 1 << 20,
		}},
		{"spawned", Message{ID: 2, Type: TypeSpawn}, Spawned{PID: 42}},
		{"kill", Message{ID: 3, Type: TypeKill}, Kill{ID: "exec-1", Signal: 9}},
		{"freeze", Message{ID: 4, Type: TypeFreeze}, Freeze{DeadlineMS: 200}},
		{"frozen", Message{ID: 4, Type: TypeFreeze}, Frozen{Stuck: []string{"7 dd"}}},
		{"thaw", Message{ID: 5, Type: TypeThaw}, Thaw{UnixNano: 1, Entropy: []byte{1, 2, 3}}},
		{"poweroff", Message{ID: 6, Type: TypePowerOff}, PowerOff{GraceMS: 10000}},
		{"stats", Message{ID: 7, Type: TypeStats}, Stats{MemoryTotal: 1, MemoryAvailable: 2, DiskTotal: 3, DiskUsed: 4, Processes: 5}},
		{"mount", Message{ID: 8, Type: TypeMount}, Mount{Mounts: []MountPoint{
			{Export: "/", Target: "/workspace"}, {Export: "/mounts/0", Target: "/data", ReadOnly: true},
		}, Reconnect: true}},
		{"oom", Message{Type: TypeOOM}, OOM{Exec: "exec-1", Name: "python3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := WriteMessage(&b, c.msg, c.body); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, append(bytes.Clone(b.Bytes()), '\n'))
			got, err := ReadMessage(&b)
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != c.msg.ID || got.Type != c.msg.Type || !reflect.DeepEqual(got.Error, c.msg.Error) {
				t.Errorf("read back %+v, want %+v", got, c.msg)
			}
			if c.body == nil {
				return
			}
			back := reflect.New(reflect.TypeOf(c.body))
			if err := got.Decode(back.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back.Elem().Interface(), c.body) {
				t.Errorf("body read back %+v, want %+v", back.Elem(), c.body)
			}
		})
	}
}

func TestMagicText(t *testing.T) {
	b, err := json.Marshal(exampleMagic())
	if err != nil {
		t.Fatal(err)
	}
	var m Magic
	if err := json.Unmarshal(b, &m); err != nil || m != exampleMagic() {
		t.Errorf("magic read back %v, %v", m, err)
	}
	for _, bad := range []string{"", "00", "zz" + exampleMagic().String()[2:]} {
		if err := m.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) accepted", bad)
		}
	}
}
