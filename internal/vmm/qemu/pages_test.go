package qemu

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
	"testing/iotest"
)

// stream puts together what QEMU writes.
type stream struct{ bytes.Buffer }

func (s *stream) word(v uint64) { s.Write(binary.BigEndian.AppendUint64(nil, v)) }

func (s *stream) name(n string) {
	s.WriteByte(byte(len(n)))
	s.WriteString(n)
}

func (s *stream) section(kind byte) { s.Write([]byte{kind, 0, 0, 0, 2}) }

func (s *stream) end() {
	s.word(pagesEnd)
	s.section(sectionFooter)
}

// page is a page of that content, of a block that is named, or of the one before.
func (s *stream) page(addr uint64, block string, fill byte) {
	flags := uint64(pagePlain)
	if fill == 0 {
		flags = pageZero
	}
	if block == "" {
		flags |= pageContinues
	}
	s.word(addr | flags)
	if block != "" {
		s.name(block)
	}
	if fill == 0 {
		s.WriteByte(0)
	} else {
		s.Write(bytes.Repeat([]byte{fill}, pageSize))
	}
}

// head is what comes before the pages.
func (s *stream) head() {
	s.WriteString("QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x07microvm")
	s.section(sectionStart)
	s.WriteString("\x03ram\x00\x00\x00\x00\x00\x00\x00\x04")
	s.word(0x9000 | pageSizes)
	s.name("ram")
	s.word(0x8000)
	s.name("bios")
	s.word(0x1000)
	s.end()
}

// states returns a state, and what is left of it.
func states() (full, want []byte) {
	var f, w stream
	for i, s := range []*stream{&f, &w} {
		whole := i == 0
		s.head()
		s.section(sectionPart)
		s.page(0, "ram", 0) // it has the name for those behind it
		if whole {
			s.page(0x1000, "", 0)
		}
		s.page(0x2000, "", 1)
		if whole {
			s.page(0x3000, "", 0)
		}
		s.end()
		s.WriteString("\x08\x00\x0b\x00\x00") // MIG_CMD_SWITCHOVER_START, of QEMU 10.0
		s.WriteString("\x08\x00\x02\x00\x04ping")
		s.section(sectionEnd)
		if whole {
			s.page(0x4000, "", 0)
		}
		s.page(0, "bios", 2)
		s.page(0, "", 0) // of what is not empty before
		s.end()
		s.WriteString("devices, in which \x00\x00\x00\x00\x00\x00\x00\x22\x00 is nothing")
	}
	return f.Bytes(), w.Bytes()
}

func TestDense(t *testing.T) {
	full, want := states()
	for name, from := range map[string]io.Reader{"at once": bytes.NewReader(full), "byte by byte": iotest.OneByteReader(bytes.NewReader(full))} {
		got, err := io.ReadAll(newDense(from))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, not %d: %v", name, len(got), len(full), len(want), err)
		}
	}
}

// TestDensePassesOn: what is cut, or of another form, comes out as it went in, but for pages of
// zeros before.
func TestDensePassesOn(t *testing.T) {
	full, want := states()
	for cut := 0; cut < len(full); cut += 17 {
		got, err := io.ReadAll(newDense(bytes.NewReader(full[:cut])))
		if err != nil {
			t.Fatal(err)
		}
		if n := min(len(got), len(want)); !bytes.Equal(got[:n-min(n, 9)], want[:n-min(n, 9)]) {
			t.Fatalf("cut at %d: something else comes out", cut)
		}
	}
	for at := 0; at < len(full); at += 11 {
		b := bytes.Clone(full)
		b[at] ^= 0xff
		got, err := io.ReadAll(newDense(bytes.NewReader(b)))
		if err != nil || len(got) > len(b) {
			t.Fatalf("changed at %d: %d bytes, %v", at, len(got), err)
		}
	}
	var s stream
	s.head()
	s.section(sectionPart)
	s.page(0x1000, "ram", 3)
	s.word(0x2000 | 0x100) // a compressed page
	s.WriteString("whatever")
	s.page(0x3000, "", 0)
	if got, err := io.ReadAll(newDense(bytes.NewReader(s.Bytes()))); err != nil || !bytes.Equal(got, s.Bytes()) {
		t.Errorf("what is not known is changed: %v", err)
	}
}

func FuzzDense(f *testing.F) {
	full, _ := states()
	f.Add(full)
	f.Add(full[:100])
	f.Add([]byte("QEVM"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(newDense(bytes.NewReader(b)))
		if err != nil || len(got) > len(b) {
			t.Fatalf("%d bytes became %d, %v", len(b), len(got), err)
		}
		again, err := io.ReadAll(newDense(bytes.NewReader(got)))
		if err != nil || !bytes.Equal(again, got) {
			t.Fatal("what is dense is not passed on as it is")
		}
	})
}
