package vmmtest

import (
	"bytes"
	"io"
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

// Serve is the guest of the suite: it sends back all bytes that it reads until a
// word is among them. It returns the word, or the error of pipe,
// whose Read and Write wait while no host is there.
func Serve(pipe io.ReadWriter) (Word, error) {
	var seen []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := pipe.Read(buf)
		if err != nil {
			return "", err
		}
		seen = append(seen, buf[:n]...)
		for _, w := range []Word{PowerOff, Panic, Reboot, Flood} {
			if bytes.Contains(seen, []byte(w)) {
				return w, nil
			}
		}
		seen = seen[max(0, len(seen)-64):]
		if _, err := pipe.Write(buf[:n]); err != nil {
			return "", err
		}
	}
}
