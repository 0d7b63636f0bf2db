package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/xfeldman/aegisvm/internal/atomicfile"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// masterSize is the size of a master key's file, in bytes.
const masterSize = 32

// key is what a master key gives for secrets.
type key struct {
	id   string // names it without telling anything of it
	aead cipher.AEAD
}

// newKey derives the key for secrets from a master key.
func newKey(master []byte) (*key, error) {
	id, err := derive(master, "key id", 8)
	if err != nil {
		return nil, err
	}
	sealing, err := derive(master, "secrets", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &key{id: hex.EncodeToString(id), aead: aead}, nil
}

// derive returns n bytes for one purpose. Those of different purposes tell nothing of
// each other. What a purpose is called never changes.
func derive(master []byte, purpose string, n int) ([]byte, error) {
	b, err := hkdf.Key(sha256.New, master, nil, "aegisvm v1 "+purpose, n)
	if err != nil {
		return nil, fmt.Errorf("derive a key for %s: %w", purpose, err)
	}
	return b, nil
}

// seal returns what is stored of a secret: nonce, ciphertext and tag.
func (k *key) seal(name string, value secret.Value) []byte {
	return k.aead.Seal(nil, nil, []byte(value.Reveal()), []byte(name)) //nolint:gosec // this AEAD makes its own nonce
}

// open returns the secret in a row that was sealed with k.
func (k *key) open(row secret.Sealed) (secret.Value, error) {
	text, err := k.aead.Open(nil, nil, row.Box, []byte(row.Name))
	if err != nil {
		return secret.Value{}, damagedFault(row.Name, err)
	}
	return secret.New(string(text)), nil
}

// readMaster returns the key of the file at path. One that is not there is
// fs.ErrNotExist.
func readMaster(path string) (*key, error) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		return nil, unreadableFault(path, err)
	case !fi.Mode().IsRegular():
		return nil, shapeFault(path, "is no ordinary file")
	case fi.Mode().Perm()&0o077 != 0:
		return nil, modeFault(path, fi.Mode().Perm())
	case fi.Size() != masterSize:
		return nil, shapeFault(path, fmt.Sprintf("has %d bytes, not %d", fi.Size(), masterSize))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadableFault(path, err)
	}
	defer func() { _ = f.Close() }() // only read
	master := make([]byte, masterSize)
	if _, err := io.ReadFull(f, master); err != nil {
		return nil, unreadableFault(path, err)
	}
	return newKey(master)
}

// makeMaster makes a new master key in a file that must not exist.
func makeMaster(path string) (*key, error) {
	master := make([]byte, masterSize)
	_, _ = rand.Read(master) // never fails, see crypto/rand
	if err := atomicfile.Create(path, master, 0o600); err != nil {
		return nil, unwritableFault(path, err)
	}
	return newKey(master)
}
