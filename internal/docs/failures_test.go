package docs

import (
	"os"
	"testing"

	"p2pagent/internal/failures"
)

// TestFailures: docs/failures.md is what the tests say, every id has a test or a
// reason, and every test's id is known.
func TestFailures(t *testing.T) {
	report, err := failures.Read(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range report.Wrong {
		t.Error(fault)
	}
	if report.Text != read(t, failures.Page) {
		t.Errorf("%s is not what the tests say: go run ./scripts/failures", failures.Page)
	}
}
