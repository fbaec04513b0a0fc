package docs

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMonitoringManifests compares what deploy/kubernetes has of alerts and
// dashboard with their sources. The other manifests are compared by
// scripts/k8s/chart, which has a helm.
func TestMonitoringManifests(t *testing.T) {
	const how = "run scripts/k8s/chart render"
	objects := map[string]map[string]any{}
	d := yaml.NewDecoder(strings.NewReader(read(t, "deploy/kubernetes/monitoring.yaml")))
	for {
		var o map[string]any
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if kind, ok := o["kind"].(string); ok {
			objects[kind] = o
		}
	}
	var alerts any
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/alerts.yaml")), &alerts); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(objects["PrometheusRule"]["spec"], alerts) {
		t.Error("deploy/kubernetes/monitoring.yaml has other alerts than deploy/prometheus/alerts.yaml: " + how)
	}
	data, _ := objects["ConfigMap"]["data"].(map[string]any)
	text, _ := data["p2pagent.json"].(string)
	var got, want any
	if err := errors.Join(json.Unmarshal([]byte(text), &got), json.Unmarshal([]byte(read(t, "deploy/grafana/p2pagent.json")), &want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("deploy/kubernetes/monitoring.yaml has another dashboard than deploy/grafana/p2pagent.json (%v): %s", err, how)
	}
}
