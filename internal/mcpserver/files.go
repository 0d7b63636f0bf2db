package mcpserver

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/xfeldman/aegisvm/client"
	"github.com/xfeldman/aegisvm/internal/fault"
)

const (
	defaultRead = 24 << 10 // bytes of a file
	maxRead     = 1 << 20  // bytes of a file; programs may ask for so much
	maxPicture  = 3 << 20  // bytes; models take no larger ones
)

// pictureTypes are what models can look at.
var pictureTypes = []any{"image/png", "image/jpeg", "image/gif", "image/webp"}

type readInput struct {
	Name   ref   `json:"name" jsonschema:"handle or id of the instance"`
	Path   ref   `json:"path" jsonschema:"absolute path in the VM, such as /workspace/result.json"`
	Offset int64 `json:"offset,omitempty" jsonschema:"begin at this byte"`
	Limit  int64 `json:"limit,omitempty" jsonschema:"how many bytes, at most 1048576"`
}

type readOutput struct {
	Path       string `json:"path"`
	Size       int64  `json:"size" jsonschema:"bytes of the whole file"`
	Mode       string `json:"mode" jsonschema:"permissions, in octal"`
	Content    string `json:"content,omitempty"`
	Base64     string `json:"base64,omitempty" jsonschema:"the bytes, where they are no text"`
	MediaType  string `json:"media_type,omitempty" jsonschema:"of a picture, which comes along as one"`
	Truncated  bool   `json:"truncated" jsonschema:"there is more of it"`
	NextOffset int64  `json:"next_offset,omitempty" jsonschema:"offset of what follows, where there is more"`
}

func (o readOutput) text() string {
	switch {
	case o.MediaType != "":
		return fmt.Sprintf("%s: %s, %d bytes", o.Path, o.MediaType, o.Size)
	case o.Base64 != "":
		return fmt.Sprintf("%s: %d bytes, binary; look at it with a program in the VM, such as file, hexdump or strings", o.Path, o.Size)
	case o.Truncated:
		return fmt.Sprintf("%s\n[... %d bytes in all; more: offset %d ...]", o.Content, o.Size, o.NextOffset)
	}
	return o.Content
}

type writeInput struct {
	Name     ref    `json:"name" jsonschema:"handle or id of the instance"`
	Path     ref    `json:"path" jsonschema:"absolute path in the VM; folders that do not exist are made, a file that exists is replaced"`
	Content  string `json:"content" jsonschema:"all that is to be in the file"`
	Encoding string `json:"encoding,omitempty" jsonschema:"base64 for content that is no text"`
	Mode     string `json:"mode,omitempty" jsonschema:"permissions in octal; 755 for a script that is to be executed"`
}

type written struct {
	Path string `json:"path"`
	Size int64  `json:"size" jsonschema:"bytes"`
}

func (s *Server) addFiles() {
	add(s, tool[readInput, readOutput]{
		name: "file_read", title: "Read a file", effect: reads,
		about: "Read a file of an instance. Pictures (PNG, JPEG, GIF, WebP) come as pictures that you can look at. The instance wakes for it. " +
			"To list a folder use exec with ls.",
		refine: func(in *jsonschema.Schema) {
			zero, one, most := 0.0, 1.0, float64(maxRead)
			in.Properties["offset"].Minimum = &zero
			in.Properties["limit"].Minimum, in.Properties["limit"].Maximum = &one, &most
			preset(in, "limit", strconv.Itoa(defaultRead))
		},
		do: s.readFile,
	})
	add(s, tool[writeInput, written]{
		name: "file_write", title: "Write a file", effect: destroys,
		about: "Write a file in an instance, in the place of one that is there. It belongs to root. The instance wakes for it. " +
			"For whole projects use a workspace instead.",
		refine: func(in *jsonschema.Schema) {
			enum(in, "encoding", "utf-8", "base64")
			in.Properties["mode"].Pattern = "^[0-7]{3,4}$"
			preset(in, "mode", `"644"`)
		},
		do: s.writeFile,
	})
}

// absolute refuses paths of which nobody knows where they begin.
func absolute(p string) (string, error) {
	if !strings.HasPrefix(p, "/") {
		return "", fault.New(fault.Invalid, "%q is not an absolute path in the VM", p).WithHint("such as /workspace/%s", p)
	}
	if strings.HasSuffix(p, "/") {
		return "", fault.New(fault.Invalid, "%q is a folder", p).WithHint("name a file in it; exec with ls lists it")
	}
	return path.Clean(p), nil
}

func (s *Server) readFile(ctx context.Context, c *call, in readInput) (out readOutput, err error) {
	at, err := absolute(string(in.Path))
	if err != nil {
		return out, err
	}
	ctx, stop := context.WithCancel(ctx) // what is not read is not sent
	defer stop()
	d, err := s.api.CopyFrom(ctx, string(in.Name), at)
	if err != nil {
		return out, err
	}
	defer func() { _ = d.Close() }() // only read
	files := tar.NewReader(d)
	h, err := files.Next()
	if err != nil {
		return out, fmt.Errorf("read %s: %w", at, err)
	}
	if err := regular(at, h); err != nil {
		return out, err
	}
	out = readOutput{Path: at, Size: h.Size, Mode: strconv.FormatInt(h.Mode&0o7777, 8)}
	if _, err := io.CopyN(io.Discard, files, min(in.Offset, h.Size)); err != nil {
		return out, fmt.Errorf("read %s: %w", at, err)
	}
	b, err := io.ReadAll(io.LimitReader(files, in.Limit))
	if err != nil {
		return out, fmt.Errorf("read %s: %w", at, err)
	}
	if in.Offset == 0 && isPicture(b) && h.Size <= maxPicture {
		return out, c.picture(&out, b, files)
	}
	out.fill(b, in.Offset)
	return out, nil
}

func regular(at string, h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg:
		return nil
	case tar.TypeDir:
		return fault.New(fault.Invalid, "%s is a folder", at).WithHint(`list it: exec with ["ls","-la",%q]`, at)
	case tar.TypeSymlink:
		to := h.Linkname
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(at), to) //nolint:gosec // it is named in a hint, and not opened
		}
		return fault.New(fault.Invalid, "%s is a link to %s", at, h.Linkname).WithHint("read %s", to)
	}
	return fault.New(fault.Invalid, "%s is no regular file", at).WithHint("read it with exec")
}

// fill sets what was read from offset on.
func (o *readOutput) fill(b []byte, offset int64) {
	end := min(offset, o.Size) + int64(len(b))
	if o.Truncated = end < o.Size; o.Truncated && !isBinary(b) {
		whole := endLine(b)
		end -= int64(len(b) - len(whole))
		b = whole
	}
	if o.Truncated {
		o.NextOffset = end
	}
	if isBinary(b) {
		o.Base64 = base64.StdEncoding.EncodeToString(b)
		return
	}
	o.Content = readable(b)
}

func isPicture(b []byte) bool {
	for _, t := range pictureTypes {
		if http.DetectContentType(b) == t {
			return true
		}
	}
	return false
}

// picture adds the picture that begins with b to what the client gets.
func (c *call) picture(out *readOutput, b []byte, rest io.Reader) error {
	more, err := io.ReadAll(rest)
	if err != nil {
		return fmt.Errorf("read %s: %w", out.Path, err)
	}
	b = append(b, more...)
	out.MediaType = http.DetectContentType(b)
	c.more = append(c.more, &mcp.ImageContent{Data: b, MIMEType: out.MediaType})
	return nil
}

func (s *Server) writeFile(ctx context.Context, _ *call, in writeInput) (out written, err error) {
	at, err := absolute(string(in.Path))
	if err != nil {
		return out, err
	}
	data := []byte(in.Content)
	if in.Encoding == "base64" {
		if data, err = base64.StdEncoding.DecodeString(in.Content); err != nil {
			return out, fault.Wrap(fault.Invalid, err, "content is not base64")
		}
	}
	mode, err := strconv.ParseInt(in.Mode, 8, 32)
	if err != nil {
		return out, fault.Wrap(fault.Invalid, err, "mode %q", in.Mode).WithHint("such as 644 or 755")
	}
	// Folders that do not exist are made by the unpacking. It does not follow links on the
	// way, so it begins in the last folder that is there.
	for dir := path.Dir(at); ; dir = path.Dir(dir) {
		archive, err := archiveOf(strings.TrimPrefix(strings.TrimPrefix(at, dir), "/"), mode, data)
		if err != nil {
			return out, err
		}
		_, err = s.api.CopyTo(ctx, string(in.Name), dir, client.CopyOptions{Extract: true}, archive)
		if fault.KindOf(err) == fault.NotFound && fault.BlameOf(err) != fault.Host && dir != "/" && !errors.Is(err, client.ErrNotRunning) {
			continue
		}
		return written{at, int64(len(data))}, err
	}
}

// archiveOf returns an archive of one file.
func archiveOf(name string, mode int64, data []byte) (io.Reader, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: time.Now()}
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write(data)
	}
	return &b, errors.Join(err, w.Close())
}
