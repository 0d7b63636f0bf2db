package tail

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func openTestLog(t *testing.T, path string, resume bool) *Log {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(f, resume)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLogKeepsTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	l := openTestLog(t, path, false)
	var all bytes.Buffer
	for i := 0; all.Len() < 3*MaxFile; i++ {
		line := fmt.Appendf(nil, "line %d %s\n", i, strings.Repeat("x", i%3000))
		all.Write(line)
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(file) > MaxFile || len(file) < MaxFile/2 || !bytes.HasSuffix(all.Bytes(), file) {
		t.Errorf("the file has %d bytes and is not the end of the stream", len(file))
	}
	if tail := l.Tail(); len(tail) != maxTail || !bytes.HasSuffix(all.Bytes(), []byte(tail)) {
		t.Errorf("the tail has %d bytes and is not the end of the stream", len(tail))
	}

	l = openTestLog(t, path, true)
	if _, err := l.Write([]byte("and on")); err != nil {
		t.Fatal(err)
	}
	if tail := l.Tail(); !strings.HasSuffix(tail, "\nand on") || len(tail) > maxTail {
		t.Errorf("a log that goes on ends in %.20q", tail[len(tail)-20:])
	}
	_ = l.Close()
	if resumed, _ := os.ReadFile(path); !bytes.Equal(resumed, append(file, "and on"...)) {
		t.Error("a log that goes on lost something")
	}
	_ = openTestLog(t, path, false).Close()
	if fi, err := os.Stat(path); err != nil || fi.Size() != 0 {
		t.Errorf("a new log begins with %d bytes, %v", fi.Size(), err)
	}
}

func TestLogDoesNotFail(t *testing.T) {
	l := openTestLog(t, filepath.Join(t.TempDir(), "console.log"), false)
	_ = l.file.Close() // as a disk that fails
	if n, err := l.Write([]byte("word")); n != 4 || err != nil || l.Tail() != "word" {
		t.Errorf("Write = %d, %v, then %q", n, err, l.Tail())
	}
}
