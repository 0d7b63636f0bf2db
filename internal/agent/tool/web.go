package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/xfeldman/aegisvm/internal/secret"
)

// The limits of the web.
const (
	webTimeout   = 30 * time.Second
	maxPage      = 4 << 20 // bytes
	maxRedirects = 10
	defaultChars = 20_000
)

const agentName = "Mozilla/5.0 (compatible; aegis-agent; +https://github.com/xfeldman/aegisvm)"

// Web fetches pages.
func Web(client *http.Client) Tool {
	w := &web{client}
	return Tool{
		Name:        "web_fetch",
		Description: "Fetch a page or file over HTTP. HTML comes back as text with its links; other text as it is. For downloads use bash with curl.",
		Schema: object("url*", field("string", "http or https"),
			"max_chars", field("integer", fmt.Sprintf("default %d", defaultChars)), "offset", field("integer", "skip as many characters")),
		Run: w.fetch,
	}
}

type web struct{ client *http.Client }

func (w *web) fetch(ctx context.Context, c Call) (Result, error) {
	args, err := read[struct {
		URL      string `json:"url"`
		MaxChars int    `json:"max_chars"`
		Offset   int    `json:"offset"`
	}](c)
	if err != nil {
		return Result{}, err
	}
	u, err := url.Parse(args.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return Result{}, fmt.Errorf("%q is no http or https URL", args.URL)
	}
	page, err := get(ctx, w.client, u.String(), nil)
	if err != nil {
		return Result{}, err
	}
	body := string(page.data)
	switch {
	case strings.Contains(page.kind, "html"):
		body = pageText(page.data, page.url)
	case !utf8.Valid(page.data):
		return Result{}, fmt.Errorf("%s is %s, not text; fetch it into a file with bash: curl -o", u, page.kind)
	}
	chars := []rune(body)
	limit := args.MaxChars
	if limit <= 0 {
		limit = defaultChars
	}
	from := min(max(args.Offset, 0), len(chars))
	to := min(from+limit, len(chars))
	out := string(chars[from:to])
	if to < len(chars) {
		out += fmt.Sprintf("\n[characters %d to %d of %d; go on with offset %d]", from, to, len(chars), to)
	}
	if strings.TrimSpace(out) == "" {
		out = "(the page has no text)"
	}
	return text("%s\n%s", page.url, out), nil
}

// page is an answer of a server.
type page struct {
	url  *url.URL // after redirects
	kind string
	data []byte
}

// get fetches a page. An answer that is no success is an error that shows its beginning.
func get(ctx context.Context, client *http.Client, address string, header http.Header) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return page{}, err
	}
	req.Header.Set("User-Agent", agentName)
	maps.Copy(req.Header, header)
	limited := *client
	limited.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects || (r.URL.Scheme != "http" && r.URL.Scheme != "https") {
			return errors.New("too many redirects")
		}
		return nil
	}
	resp, err := limited.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return page{}, fmt.Errorf("%s did not answer within %v", req.URL.Host, webTimeout)
		}
		return page{}, fmt.Errorf("fetch: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read is all that matters
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return page{}, fmt.Errorf("fetch: %w", err)
	}
	p := page{url: resp.Request.URL, kind: resp.Header.Get("Content-Type"), data: data}
	if p.kind == "" {
		p.kind = http.DetectContentType(data)
	}
	if resp.StatusCode/100 != 2 {
		return page{}, fmt.Errorf("%s answers %s: %s", resp.Request.URL.Host, resp.Status, clip(strings.ToValidUTF8(string(data), "?"), 500))
	}
	return p, nil
}

const braveURL = "https://api.search.brave.com/res/v1"

// Search returns the tools that search the web, over the API of Brave.
func Search(client *http.Client, base string, key secret.Value) []Tool {
	if base == "" {
		base = braveURL
	}
	s := &search{client: client, base: strings.TrimSuffix(base, "/"), key: key}
	schema := object("query*", field("string", "what to search for"), "count", field("integer", "how many results; default 8, at most 20"))
	return []Tool{
		{Name: "web_search", Description: "Search the web: titles, addresses and excerpts.", Schema: schema, Run: s.pages},
		{Name: "image_search", Description: "Search pictures on the web: titles and addresses. To show one, download it with bash and use respond_with_image.", Schema: schema, Run: s.images},
	}
}

type search struct {
	client *http.Client
	base   string
	key    secret.Value
}

type hit struct {
	Title       string `json:"title"`
	URL         string `json:"url"`
	Description string `json:"description"`
	Properties  struct {
		URL string `json:"url"`
	} `json:"properties"`
}

func (s *search) ask(ctx context.Context, c Call, path string, into any) error {
	args, err := read[struct {
		Query string `json:"query"`
		Count int    `json:"count"`
	}](c)
	if err != nil {
		return err
	}
	if strings.TrimSpace(args.Query) == "" || utf8.RuneCountInString(args.Query) > 400 {
		return errors.New("query has from 1 to 400 characters")
	}
	count := args.Count
	if count <= 0 {
		count = 8
	}
	q := url.Values{"q": {args.Query}, "count": {strconv.Itoa(min(count, 20))}}
	p, err := get(ctx, s.client, s.base+path+"?"+q.Encode(), http.Header{"X-Subscription-Token": {s.key.Reveal()}, "Accept": {"application/json"}})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(p.data, into); err != nil {
		return errors.New("the search answered with something that is not its protocol")
	}
	return nil
}

func (s *search) pages(ctx context.Context, c Call) (Result, error) {
	var found struct {
		Web struct {
			Results []hit `json:"results"`
		} `json:"web"`
	}
	if err := s.ask(ctx, c, "/web/search", &found); err != nil {
		return Result{}, err
	}
	var b strings.Builder
	for _, h := range found.Web.Results {
		fmt.Fprintf(&b, "%s\n%s\n%s\n\n", plain(h.Title), h.URL, plain(h.Description))
	}
	return some(b.String()), nil
}

func (s *search) images(ctx context.Context, c Call) (Result, error) {
	var found struct {
		Results []hit `json:"results"`
	}
	if err := s.ask(ctx, c, "/images/search", &found); err != nil {
		return Result{}, err
	}
	var b strings.Builder
	for _, h := range found.Results {
		fmt.Fprintf(&b, "%s\nimage: %s\npage: %s\n\n", plain(h.Title), h.Properties.URL, h.URL)
	}
	return some(b.String()), nil
}

func some(found string) Result {
	if found == "" {
		return text("nothing found")
	}
	return Result{Text: found}
}
