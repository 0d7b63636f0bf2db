package qemu

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

// guestMemory is memory in a slice.
type guestMemory []byte

// WriteAt implements io.WriterAt.
func (m guestMemory) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[at:], p), nil
}

const memorySize = 0x8000 // of states

// devices is what is left of the state of states, without its memory.
func devices() []byte {
	var w stream
	w.head()
	w.section(sectionPart)
	w.end()
	w.WriteString("\x08\x00\x0b\x00\x00")
	w.WriteString("\x08\x00\x02\x00\x04ping")
	w.section(sectionEnd)
	w.page(0, "bios", 2)
	w.page(0, "", 0)
	w.end()
	w.WriteString("devices, in which \x00\x00\x00\x00\x00\x00\x00\x22\x00 is nothing")
	return w.Bytes()
}

func TestSplit(t *testing.T) {
	full, _ := states()
	want := make(guestMemory, memorySize)
	copy(want[0x2000:], bytes.Repeat([]byte{1}, pageSize))
	for name, from := range map[string]io.Reader{"at once": bytes.NewReader(full), "byte by byte": iotest.OneByteReader(bytes.NewReader(full))} {
		memory := make(guestMemory, memorySize)
		s := newSplit(from, memory, memorySize)
		got, err := io.ReadAll(s)
		if err != nil || !s.apart() || !bytes.Equal(got, devices()) || !bytes.Equal(memory, want) {
			t.Errorf("%s: %d bytes of %d, not %d, apart %v: %v", name, len(got), len(full), len(devices()), s.apart(), err)
		}
	}
}

// TestSplitRepeats: QEMU may send a page again, of other content.
func TestSplitRepeats(t *testing.T) {
	var f stream
	f.head()
	f.section(sectionPart)
	for _, fill := range []byte{1, 2, 0} {
		f.page(0x1000, "ram", fill)
		f.page(0x2000, "", fill)
		f.page(0x5000, "", 3-fill)
	}
	f.page(0x7000, "", 7)
	f.end()
	f.section(sectionEnd)
	f.end()
	memory := make(guestMemory, memorySize)
	s := newSplit(&f, memory, memorySize)
	if _, err := io.Copy(io.Discard, onlyReader{s}); err != nil || !s.apart() {
		t.Fatal(err)
	}
	for at, want := range map[int]byte{0x1000: 0, 0x2fff: 0, 0x5000: 3, 0x5fff: 3, 0x6000: 0, 0x7fff: 7} {
		if memory[at] != want {
			t.Errorf("at %#x is %d, not %d", at, memory[at], want)
		}
	}
}

// TestSplitLeavesAlone: a state of which the blocks are not understood comes out as it went in, and
// is one that holds the memory.
func TestSplitLeavesAlone(t *testing.T) {
	full, _ := states()
	for name, b := range map[string][]byte{
		"another version": bytes.Replace(full, []byte("\x03ram\x00\x00\x00\x00\x00\x00\x00\x04"), []byte("\x03ram\x00\x00\x00\x00\x00\x00\x00\x05"), 1),
		"nothing":         nil,
	} {
		memory := make(guestMemory, memorySize)
		s := newSplit(bytes.NewReader(b), memory, memorySize)
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, b) || s.apart() {
			t.Errorf("%s: %d bytes became %d, apart %v: %v", name, len(b), len(got), s.apart(), err)
		}
	}
	s := newSplit(bytes.NewReader(full), make(guestMemory, 2*memorySize), 2*memorySize)
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, full) || s.apart() {
		t.Errorf("memory of another size: %v", err)
	}
}

// TestSplitFails: once pages are taken out, there is no way back.
func TestSplitFails(t *testing.T) {
	full, _ := states()
	memory := make(guestMemory, memorySize)
	end := bytes.Index(full, []byte("devices"))
	for cut := 120; cut < end; cut += 97 {
		s := newSplit(bytes.NewReader(full[:cut]), memory, memorySize)
		if _, err := io.ReadAll(s); err == nil || s.apart() {
			t.Fatalf("cut at %d of %d: %v", cut, len(full), err)
		}
	}
	var beyond, strange stream
	beyond.head()
	beyond.section(sectionPart)
	beyond.page(memorySize, "ram", 1)
	strange.head()
	strange.section(sectionPart)
	strange.word(0x2000 | 0x100) // a compressed page
	for what, f := range map[string]*stream{"beyond the memory": &beyond, "strange": &strange} {
		s := newSplit(f, memory, memorySize)
		if _, err := io.ReadAll(s); !errors.Is(err, errForm) {
			t.Errorf("a page %s: %v", what, err)
		}
	}
	s := newSplit(bytes.NewReader(full), noRoom{}, memorySize)
	if _, err := io.ReadAll(s); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("memory without room: %v", err)
	}
}

type noRoom struct{}

// WriteAt implements io.WriterAt.
func (noRoom) WriteAt([]byte, int64) (int, error) { return 0, syscall.ENOSPC }

// TestLeft: the state tells whether QEMU was told to leave the memory out.
func TestLeft(t *testing.T) {
	if strings.Contains(string(devices()[:headSize]), ignoreShared) {
		t.Error("a state of which the memory was taken out says that QEMU left it out")
	}
}

func FuzzSplit(f *testing.F) {
	full, want := states()
	f.Add(full)
	f.Add(want)
	f.Add(full[:100])
	f.Add([]byte("QEVM"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSplit(bytes.NewReader(b), make(guestMemory, memorySize), memorySize)
		got, err := io.ReadAll(s)
		if len(got) > len(b) || err == nil && !s.apart() && !bytes.Equal(got, b) {
			t.Fatalf("%d bytes became %d, apart %v: %v", len(b), len(got), s.apart(), err)
		}
	})
}
