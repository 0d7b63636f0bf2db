package memory

import (
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/xfeldman/aegisvm/internal/agent/listfile"
	"github.com/xfeldman/aegisvm/internal/fault"
)

func TestManyAtOnce(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "a", "memory.json"))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := s.Add("note "+strconv.Itoa(i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := s.All()
	if err != nil || len(all) != 20 {
		t.Fatalf("%d notes, %v", len(all), err)
	}
	if err := s.Delete(all[3].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(all[3].ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("deleted twice: %v", err)
	}
	found, err := s.Search("19 note", 5)
	if err != nil || len(found) != 5 || found[0].Text != "note 19" {
		t.Errorf("%+v, %v", found, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`[{"id":"mem-1","text":"x","tags":["a"],"created_at":"2026-01-02T03:04:05Z"}]`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[{"id":1}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if notes, err := listfile.Decode[Note](data); err != nil && notes != nil {
			t.Fatal("notes and an error")
		}
	})
}
