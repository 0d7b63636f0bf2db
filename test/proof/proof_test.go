package proof

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// named finds the names of tests in a document.
var named = regexp.MustCompile("`([a-z0-9/-]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]*)(?:/([A-Za-z0-9_-]+))?`")

// proof is a test that a document names.
type proof struct{ dir, test, part string }

func (p proof) String() string { return p.dir + "." + p.test + "/" + p.part }

func proofsIn(text string) []proof {
	var out []proof
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		out = append(out, proof{m[1], m[2], m[3]})
	}
	return out
}

// missing says what of a proof is not there, or nothing.
func missing(t *testing.T, p proof) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, p.dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var source []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, b...)
	}
	switch {
	case len(files) == 0:
		return "there are no tests in " + p.dir
	case !regexp.MustCompile(`(?m)^func ` + p.test + `\((t \*testing\.T|f \*testing\.F)\)`).Match(source):
		return "there is no such test"
	case p.part == "":
		return ""
	}
	if _, err := os.Stat(filepath.Join(root, p.dir, "testdata", "script", p.part+".txtar")); err == nil {
		return ""
	}
	for _, spelt := range []string{p.part, strings.ReplaceAll(p.part, "_", " ")} {
		if bytes.Contains(source, []byte(`"`+spelt+`"`)) || bytes.Contains(source, []byte(`{"`+spelt+`",`)) {
			return ""
		}
	}
	return "the test has no such part"
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNamedTests looks for all tests that documents name.
func TestNamedTests(t *testing.T) {
	for path, least := range map[string]int{"lessons.md": 100, filepath.Join(root, "docs", "SECURITY.md"): 40} {
		proofs := proofsIn(read(t, path))
		if len(proofs) < least {
			t.Errorf("%s names %d tests", path, len(proofs))
		}
		for _, p := range proofs {
			if why := missing(t, p); why != "" {
				t.Errorf("%s names %s: %s", path, p, why)
			}
		}
	}
}

// TestLessonsAreCovered: the table has each lesson once, in order, with a test.
func TestLessonsAreCovered(t *testing.T) {
	rows := tableOf(t, "Lesson")
	want := 0
	for _, row := range rows {
		want++
		if len(row) != 3 || row[0] != number(want) {
			t.Fatalf("row %d is %q", want, row)
		}
		if len(proofsIn(row[2])) == 0 {
			t.Errorf("lesson %s, %s: no test", row[0], row[1])
		}
	}
	if want < 60 {
		t.Errorf("%d lessons", want)
	}
}

// TestMutations: what was removed to see a test fail is told for ten lessons at least, with a
// test that is in the lesson's own row.
func TestMutations(t *testing.T) {
	lessons := map[string]string{}
	for _, row := range tableOf(t, "Lesson") {
		lessons[row[0]] = row[2]
	}
	rows := tableOf(t, "Removed")
	if len(rows) < 10 {
		t.Errorf("%d mutations", len(rows))
	}
	for _, row := range rows {
		for _, p := range proofsIn(row[2]) {
			if !slices.Contains(proofsIn(lessons[row[0]]), p) {
				t.Errorf("lesson %s does not name %s, which is said to have failed", row[0], p)
			}
		}
	}
}

// tableOf returns the rows of the tables in lessons.md whose second column has a title.
func tableOf(t *testing.T, title string) [][]string {
	t.Helper()
	var rows [][]string
	in := false
	for line := range strings.Lines(read(t, "lessons.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			in = false
		case len(cells) > 1 && cells[1] == title:
			in = true
		case in && !strings.HasPrefix(cells[0], "--"):
			rows = append(rows, cells)
		}
	}
	return rows
}

func number(n int) string { return "L" + strconv.Itoa(n) }

// TestMissing can fail.
func TestMissing(t *testing.T) {
	for name, found := range map[string]bool{
		"`test/proof.TestMissing`": true, "`test/proof.TestNothing`": false, "`nowhere.TestMissing`": false,
		"`test/script.TestScripts/secret_nowhere`": true, "`test/script.TestScripts/no_such`": false, "`internal/frame.FuzzReader`": true,
	} {
		p := proofsIn(name)
		if len(p) != 1 || (missing(t, p[0]) == "") != found {
			t.Errorf("%s: %v, %q", name, p, missing(t, p[0]))
		}
	}
}
