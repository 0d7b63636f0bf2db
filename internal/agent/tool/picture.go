package tool

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	openai "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/xfeldman/aegisvm/internal/agent/blob"
	"github.com/xfeldman/aegisvm/internal/secret"
)

// imageTimeout bounds the making of a picture.
const imageTimeout = 3 * time.Minute

// Respond returns the tool that shows pictures to the user.
func Respond(dir string, blobs *blob.Store) Tool {
	return Tool{
		Name:        "respond_with_image",
		Description: "Show a picture (png, jpeg, gif, webp, at most 10 MB) to the user: it comes with your answer.",
		Schema:      object("path*", field("string", "the file")),
		Run: func(_ context.Context, c Call) (Result, error) {
			args, err := read[struct {
				Path string `json:"path"`
			}](c)
			if err != nil {
				return Result{}, err
			}
			path := resolve(dir, args.Path)
			data, more, err := load(path)
			if err != nil {
				return Result{}, err
			}
			if more {
				return Result{}, fmt.Errorf("%s is larger than %d bytes; make it smaller first", path, maxRead)
			}
			p, err := blobs.Put(data)
			if err != nil {
				return Result{}, fmt.Errorf("%s: %w", path, err)
			}
			c.Reply(p)
			return text("%s comes with your answer", path), nil
		},
	}
}

// Images says how pictures are made.
type Images struct {
	Client  *http.Client
	BaseURL string // "" is OpenAI's
	Key     secret.Value
	Model   string
	Blobs   *blob.Store
	Dir     string // where they are put
}

// Generate returns the tool that makes pictures, over the images of OpenAI.
func Generate(conf Images) Tool {
	return Tool{
		Name:        "image_generate",
		Description: "Make a picture from a description. It is put into a file, and comes with your answer.",
		Schema: object("prompt*", field("string", "what is to be seen"),
			"size", map[string]any{"type": "string", "enum": []string{"1024x1024", "1536x1024", "1024x1536"}},
			"path", field("string", "where to put the file; default a new name")),
		Run: conf.run,
	}
}

func (conf Images) run(ctx context.Context, c Call) (Result, error) {
	args, err := read[struct {
		Prompt string `json:"prompt"`
		Size   string `json:"size"`
		Path   string `json:"path"`
	}](c)
	if err != nil {
		return Result{}, err
	}
	if strings.TrimSpace(args.Prompt) == "" {
		return Result{}, errors.New("prompt is empty")
	}
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	service := openai.NewImageService(option.WithHTTPClient(conf.Client), option.WithAPIKey(conf.Key.Reveal()),
		option.WithBaseURL(cmp.Or(conf.BaseURL, "https://api.openai.com/v1/")), option.WithMaxRetries(2))
	got, err := service.Generate(ctx, openai.ImageGenerateParams{
		Prompt: args.Prompt, Model: cmp.Or(conf.Model, "gpt-image-1"), Size: openai.ImageGenerateParamsSize(args.Size),
	})
	if err != nil {
		if e, ok := errors.AsType[*openai.Error](err); ok {
			return Result{}, fmt.Errorf("the picture was refused (status %d): %s", e.StatusCode, clip(e.Message, 300))
		}
		return Result{}, fmt.Errorf("make a picture: %w", err)
	}
	if len(got.Data) == 0 {
		return Result{}, errors.New("no picture came back")
	}
	data, err := base64.StdEncoding.DecodeString(got.Data[0].B64JSON)
	if err != nil || len(data) == 0 {
		return Result{}, errors.New("what came back is no picture")
	}
	p, err := conf.Blobs.Put(data)
	if err != nil {
		return Result{}, err
	}
	path := resolve(conf.Dir, cmp.Or(args.Path, "images/"+p.Blob[:12]+p.Blob[strings.LastIndexByte(p.Blob, '.'):]))
	if err := putFile(path, data); err != nil {
		return Result{}, err
	}
	c.Reply(p)
	return text("made %s; it comes with your answer", path), nil
}
