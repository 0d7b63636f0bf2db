package guestproto

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// scanAll feeds the pieces to s. It returns the bytes given out after each opening
// (the first element: before any), and the nonces.
func scanAll(s *Scanner, pieces [][]byte) (data [][]byte, found []Found) {
	data = [][]byte{nil}
	for _, p := range pieces {
		for rest := bytes.Clone(p); ; {
			before, f, more := s.Scan(rest)
			data[len(data)-1] = append(data[len(data)-1], before...)
			if f == nil {
				break
			}
			found = append(found, *f)
			data = append(data, nil)
			rest = more
		}
	}
	return data, found
}

// cut splits b at random places.
func cut(r *rand.Rand, b []byte) [][]byte {
	var out [][]byte
	for len(b) > 0 {
		n := 1 + r.IntN(min(len(b), 1+r.IntN(64)))
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

func TestScannerAcrossAnyBoundary(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		// A magic over two letters makes false starts frequent.
		var magic, other Magic
		for i := range magic {
			magic[i], other[i] = "ab"[r.IntN(2)], "ab"[r.IntN(2)]
		}
		noise := func(n int) []byte {
			b := make([]byte, r.IntN(n))
			for i := range b {
				b[i] = "abc"[r.IntN(3)]
			}
			return append(b, 'z') // no opening begins in noise and ends behind it
		}
		s := Scanner{Magic: magic}
		if r.IntN(2) == 0 {
			s.Next = &other
		}
		var stream []byte
		var wantData [][]byte
		var want []Found
		for range 1 + r.IntN(5) {
			n := noise(100)
			wantData = append(wantData, n)
			f := Found{Magic: magic}
			if s.Next != nil && r.IntN(2) == 0 {
				f.Magic = other
			}
			for i := range f.Nonce {
				f.Nonce[i] = byte(r.IntN(256))
			}
			stream = append(append(stream, n...), Opening(f.Magic, f.Nonce)...)
			want = append(want, f)
			for range r.IntN(4) { // the host repeats itself
				stream = append(stream, Opening(f.Magic, f.Nonce)...)
				want = append(want, f)
				wantData = append(wantData, nil)
			}
		}
		tail := noise(100)
		stream = append(stream, tail...)
		wantData = append(wantData, tail)

		data, found := scanAll(&s, cut(r, stream))
		if !slices.Equal(found, want) {
			t.Fatalf("seed %d: found %v, want %v", seed, found, want)
		}
		for i := range wantData {
			// A session about to end may see the start of the opening that ends it.
			if !bytes.HasPrefix(data[i], wantData[i]) || len(data[i]) >= len(wantData[i])+OpeningSize {
				t.Fatalf("seed %d: part %d = %q, want %q", seed, i, data[i], wantData[i])
			}
		}
		if !bytes.Equal(data[len(data)-1], tail) {
			t.Fatalf("seed %d: tail = %q, want %q", seed, data[len(data)-1], tail)
		}
	}
}

// A request whose last byte is the first of the magic must not wait for another.
func TestScannerHoldsNothingBack(t *testing.T) {
	s := Scanner{Magic: Magic([]byte("}23456789012345678901234"))}
	_, f, rest := s.Scan(Opening(s.Magic, Nonce{1}))
	if f == nil || len(rest) != 0 {
		t.Fatalf("opening not found: %v, rest %q", f, rest)
	}
	for _, in := range []string{"{}", "{}", "}", "}2", "}23456789012345678901234"} {
		if got, f, _ := s.Scan([]byte(in)); string(got) != in || f != nil {
			t.Errorf("Scan(%q) = %q, %v", in, got, f)
		}
	}
}

func FuzzScanner(f *testing.F) {
	m := Magic([]byte("abababababababababababab"))
	f.Add(append([]byte("xx"), Opening(m, Nonce{1})...), uint8(3))
	f.Add(slices.Concat(Opening(m, Nonce{1}), Opening(m, Nonce{1}), []byte("ab")), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		whole, piece := Scanner{Magic: m}, Scanner{Magic: m}
		_, want := scanAll(&whole, [][]byte{in})
		pieces := slices.Collect(slices.Chunk(in, int(step)+1))
		data, found := scanAll(&piece, pieces)
		if !slices.Equal(found, want) {
			t.Fatalf("found %v in pieces, %v in the whole", found, want)
		}
		total := len(found) * OpeningSize
		for _, d := range data {
			total += len(d)
		}
		if total+len(piece.kept) < len(in) {
			t.Fatalf("%d bytes of %d lost", len(in)-total, len(in))
		}
	})
}
