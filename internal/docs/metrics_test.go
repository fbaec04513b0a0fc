package docs

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"p2pagent/internal/metrics"
)

// TestMetricsTable generates the table of metrics from the families themselves.
func TestMetricsTable(t *testing.T) {
	var out strings.Builder
	fmt.Fprintln(&out, "| metric | type | labels | meaning |\n|---|---|---|---|")
	for _, f := range metrics.Families() {
		labels := ""
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "` `") + "`"
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, labels, f.Help)
	}
	generated(t, "docs/operations.md", "metrics", out.String())
}

var metricName = regexp.MustCompile(`\bp2pagent_[a-z_]+`)

// TestNamedMetricsExist looks for metrics in documents, alerts and dashboard that
// no agent exports.
func TestNamedMetricsExist(t *testing.T) {
	known := map[string]bool{}
	for _, f := range metrics.Families() {
		known[f.Name] = true
		if f.Type == "histogram" {
			known[f.Name+"_bucket"], known[f.Name+"_sum"], known[f.Name+"_count"] = true, true, true
		}
	}
	texts := documents(t)
	for _, name := range []string{"deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml", "deploy/grafana/p2pagent.json"} {
		texts[name] = read(t, name)
	}
	for name, text := range texts {
		for _, metric := range metricName.FindAllString(text, -1) {
			if !known[metric] {
				t.Errorf("%s: no agent exports %s", name, metric)
			}
		}
	}
}
