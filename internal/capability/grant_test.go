package capability

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/xfeldman/aegisvm/api"
	"github.com/xfeldman/aegisvm/internal/fault"
	"github.com/xfeldman/aegisvm/internal/size"
)

func holder() Holder {
	return Holder{
		Rights: api.Capabilities{
			Spawn: true, SpawnDepth: 2, MaxChildren: 3, MaxExposePorts: 2,
			AllowedImages: []string{"alpine"}, AllowedWorkspaces: []string{"data"}, AllowedSecrets: []string{"KEY", "OTHER"},
			LLM: []string{"ollama"},
		},
		Memory: 512 * size.MiB, VCPUs: 2, Image: "debian", Secrets: []string{"KEY"},
	}
}

func TestGrant(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Holder)
		child  Child
		want   string // of the reason; "" is allowed
	}{
		{name: "nothing asked for"},
		{name: "own size", child: Child{Memory: 512 * size.MiB, VCPUs: 2, Image: "debian"}},
		{name: "all that is allowed", child: Child{Image: "alpine", Workspace: "data", Secrets: []string{"KEY"}, Ports: 2}},
		{name: "no right", change: func(h *Holder) { h.Rights = api.Capabilities{} }, want: "may not start others"},
		{name: "no depth", change: func(h *Holder) { h.Rights.SpawnDepth = 0 }, want: "no generation"},
		{name: "no children", change: func(h *Holder) { h.Rights.MaxChildren = 0 }, want: "no children"},
		{name: "memory", child: Child{Memory: 513 * size.MiB}, want: "memory"},
		{name: "memory over the limit", change: func(h *Holder) { h.Rights.MaxMemoryMB = 256 }, child: Child{Memory: 512 * size.MiB}, want: "memory"},
		{name: "memory within a higher limit", change: func(h *Holder) { h.Rights.MaxMemoryMB = 1024 }, child: Child{Memory: size.GiB}},
		{name: "vCPUs", child: Child{VCPUs: 3}, want: "vCPUs"},
		{name: "ports", child: Child{Ports: 3}, want: "ports"},
		{name: "image", child: Child{Image: "alpine:3"}, want: "image"},
		{name: "image star", child: Child{Image: Any}, want: "image"},
		{name: "any image", change: func(h *Holder) { h.Rights.AllowedImages = []string{Any} }, child: Child{Image: "x"}},
		{name: "workspace", child: Child{Workspace: "data-other"}, want: "workspace"},
		{name: "secret not allowed", change: func(h *Holder) { h.Secrets = []string{Any} }, child: Child{Secrets: []string{"THIRD"}}, want: "handed on"},
		{name: "secret it has not", child: Child{Secrets: []string{"OTHER"}}, want: "itself"},
		{name: "all secrets", change: func(h *Holder) { h.Secrets = []string{Any} }, child: Child{Secrets: []string{Any}}, want: "handed on"},
		{name: "all secrets of one", change: func(h *Holder) { h.Rights.AllowedSecrets = []string{Any} }, child: Child{Secrets: []string{Any}}, want: "itself"},
		{name: "fewer rights", child: Child{Rights: &api.Capabilities{LLM: []string{"ollama"}}}},
		{name: "more depth", child: Child{Rights: &api.Capabilities{Spawn: true, SpawnDepth: 2}}, want: "spawn_depth"},
		{name: "more children", child: Child{Rights: &api.Capabilities{Spawn: true, SpawnDepth: 1, MaxChildren: 4}}, want: "max_children"},
		{name: "more servers", child: Child{Rights: &api.Capabilities{LLM: []string{Any}}}, want: "llm"},
		{name: "negative", child: Child{Rights: &api.Capabilities{MaxChildren: -1}}, want: "cannot be -1"},
	} {
		h := holder()
		if c.change != nil {
			c.change(&h)
		}
		_, err := h.Grant(c.child)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.HintOf(err) == ""):
			t.Errorf("%s: %v, hint %q; want %q", c.name, err, fault.HintOf(err), c.want)
		}
	}
}

func random(r *rand.Rand) api.Capabilities {
	list := func() (out []string) {
		for _, s := range []string{"a", "b", "c", Any} {
			if r.IntN(4) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	return api.Capabilities{
		Spawn: r.IntN(4) > 0, SpawnDepth: r.IntN(4), MaxChildren: r.IntN(4), MaxExposePorts: r.IntN(4),
		MaxMemoryMB: int64(r.IntN(4)) * 128, MaxVCPUs: r.IntN(4),
		AllowedImages: list(), AllowedWorkspaces: list(), AllowedSecrets: list(), LLM: list(),
	}
}

// exceeds names a right in which a child has more than its parent.
func exceeds(child, parent Holder) string {
	c, p := child.Rights, parent.Rights
	switch {
	case c.Spawn && !p.Spawn:
		return "spawn"
	case c.SpawnDepth > 0 && c.SpawnDepth >= p.SpawnDepth:
		return "depth"
	case c.MaxChildren > p.MaxChildren:
		return "children"
	case c.MaxExposePorts > p.MaxExposePorts:
		return "ports"
	case CanSpawn(c) && child.MaxMemory() > parent.MaxMemory():
		return "memory"
	case CanSpawn(c) && child.MaxVCPUs() > parent.MaxVCPUs():
		return "vcpus"
	}
	pl := lists(&p)
	for i, l := range lists(&c) {
		for _, item := range []string{"a", "b", "c", "d"} {
			if Has(*l.list, item) && !Has(*pl[i].list, item) {
				return l.name + " " + item
			}
		}
	}
	return ""
}

// Whatever is asked for, no descendant has more than its ancestor, and there are no more
// generations than the first was given.
func TestChildrenHaveNoMore(t *testing.T) {
	granted := 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		first := Holder{Rights: random(r), Memory: size.Bytes(1+r.IntN(4)) * 128 * size.MiB, VCPUs: 1 + r.IntN(4), Image: "a", Secrets: []string{"a", "b"}}
		parent := first
		for generation := 1; ; generation++ {
			want := Child{Memory: size.Bytes(r.IntN(5)) * 128 * size.MiB, VCPUs: r.IntN(5), Ports: r.IntN(3)}
			if r.IntN(2) == 0 {
				c := random(r)
				want.Rights = &c
			}
			rights, err := parent.Grant(want)
			if err != nil {
				break
			}
			granted++
			child := Holder{Rights: rights, Memory: want.Memory, VCPUs: want.VCPUs, Image: "a"}
			if child.Memory == 0 {
				child.Memory = parent.DefaultMemory()
			}
			if child.VCPUs == 0 {
				child.VCPUs = parent.DefaultVCPUs()
			}
			for _, ancestor := range []Holder{parent, first} {
				if what := exceeds(child, ancestor); what != "" {
					t.Fatalf("seed %d: a child has more %s: %+v of %+v", seed, what, child, ancestor)
				}
			}
			if generation > first.Rights.SpawnDepth {
				t.Fatalf("seed %d: generation %d of %d", seed, generation, first.Rights.SpawnDepth)
			}
			parent = child
		}
	}
	if granted < 1000 {
		t.Errorf("only %d children: the test shows little", granted)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(holder().Rights); err != nil {
		t.Error(err)
	}
	for _, bad := range []api.Capabilities{
		{SpawnDepth: -1}, {SpawnDepth: MaxDepth + 1}, {MaxChildren: MaxChildren + 1}, {MaxMemoryMB: -1}, {LLM: []string{""}},
	} {
		if err := Check(bad); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
