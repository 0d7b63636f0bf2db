package vmmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Word is an order to the guest of the suite.
type Word string

// The words, each a line of its own.
const (
	PowerOff Word = "\x01power-off\n"
	Panic    Word = "\x01panic\n"
	Reboot   Word = "\x01reboot\n"
	Flood    Word = "\x01flood\n" // write to the console without end
)

// Guest is the guest of the suite. It has something to remember: a note, and some
// memory that it has filled.
type Guest struct {
	// Disk opens the disk of that name. It is nil in a machine that has none.
	Disk func(name string) (Disk, error)

	mu    sync.Mutex
	note  string
	block []byte
}

// Disk is a disk as its guest sees it. What was written is on the disk when WriteAt
// returns, and what is read comes from there.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	io.Seeker
	io.Closer
}

// Serve sends back all bytes that it reads until a word is among them, which it
// returns, or the error of pipe, whose Read and Write wait while no host is there.
//
// Lines of the form \x01ID?QUESTION\n are answered with \x02ID=ANSWER\n besides. ID
// is a number, and a question that is repeated under its ID is answered again but
// not performed again.
func (g *Guest) Serve(pipe io.ReadWriter) (Word, error) {
	var seen []byte
	var last, answer string
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		if err != nil {
			return "", err
		}
		seen = append(seen, buf[:n]...)
		out := buf[:n]
		for line := nextLine(&seen); line != ""; line = nextLine(&seen) {
			switch w := Word(line); w {
			case PowerOff, Panic, Reboot, Flood:
				return w, nil
			}
			id, question, ok := strings.Cut(strings.Trim(line, "\x01\n"), "?")
			if !ok {
				continue
			}
			if id != last {
				last, answer = id, g.answer(question)
			}
			out = fmt.Appendf(slices.Clip(out), "\x02%s=%s\n", id, answer)
		}
		if _, err := pipe.Write(out); err != nil {
			return "", err
		}
	}
}

// nextLine takes the next whole line that begins with \x01 from seen, or returns "".
func nextLine(seen *[]byte) string {
	begin := bytes.IndexByte(*seen, 1)
	if begin < 0 {
		*seen = (*seen)[:0]
		return ""
	}
	*seen = (*seen)[begin:]
	// A line that was lost in the middle is followed by another.
	if again := bytes.LastIndexByte((*seen)[:max(0, bytes.IndexByte(*seen, '\n'))], 1); again > 0 {
		*seen = (*seen)[again:]
	}
	end := bytes.IndexByte(*seen, '\n')
	if end < 0 {
		if len(*seen) > 1<<10 {
			*seen = (*seen)[:0]
		}
		return ""
	}
	line := string((*seen)[:end+1])
	*seen = (*seen)[end+1:]
	return line
}

// The questions, each with its arguments.
const (
	askNote  = "note"  // what is the note?
	askKeep  = "keep"  // TEXT: make it the note
	askFill  = "fill"  // N: fill so many bytes with what N makes
	askSum   = "sum"   // what is the sum of the filled bytes?
	askWrite = "write" // DISK TEXT: write the text to the disk
	askRead  = "read"  // DISK: what was written?
	askSize  = "size"  // DISK: how many bytes has it?
)

func (g *Guest) answer(question string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	what, arg, _ := strings.Cut(question, " ")
	switch what {
	case askNote:
		return g.note
	case askKeep:
		g.note = arg
		return arg
	case askFill:
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err.Error()
		}
		g.block = pattern(n)
		return "filled"
	case askSum:
		return strconv.Itoa(int(crc32.ChecksumIEEE(g.block)))
	case askWrite, askRead, askSize:
		name, text, _ := strings.Cut(arg, " ")
		text, err := g.useDisk(what, name, text)
		if err != nil {
			return "error: " + err.Error()
		}
		return text
	}
	return "what?"
}

// pattern makes n bytes that do not repeat by pages.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(n) //nolint:gosec // any number will do
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

const (
	diskBlock = 4096
	diskPlace = 1 << 20 // where the text is
)

func (g *Guest) useDisk(what, name, text string) (string, error) {
	if g.Disk == nil {
		return "", errors.New("no disks")
	}
	d, err := g.Disk(name)
	if err != nil {
		return "", err
	}
	b := make([]byte, diskBlock)
	switch what {
	case askWrite:
		copy(b, text)
		_, err = d.WriteAt(b, diskPlace)
	case askRead:
		_, err = d.ReadAt(b, diskPlace)
	case askSize:
		var n int64
		n, err = d.Seek(0, io.SeekEnd)
		b = strconv.AppendInt(nil, n, 10)
	}
	return string(bytes.TrimRight(b, "\x00")), errors.Join(err, d.Close())
}

// remembered is a guest's memory where it is kept as a value.
type remembered struct {
	Note string
	Fill int
}

// Memory returns all that the guest remembers, for drivers whose machines are no
// real ones.
func (g *Guest) Memory() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	b, err := json.Marshal(remembered{g.note, len(g.block)})
	if err != nil {
		panic(err) // text and a number
	}
	return b
}

// Remember makes the guest the one whose Memory that was.
func (g *Guest) Remember(memory []byte) error {
	var r remembered
	if err := json.Unmarshal(memory, &r); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.note, g.block = r.Note, pattern(r.Fill)
	return nil
}
