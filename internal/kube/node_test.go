package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNode: one request with the account's token and a merge patch, over TLS with
// the cluster's certificate alone.
func TestNode(t *testing.T) {
	labels := map[string]string{"disk": "ssd", Prefix + "old": "1"}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer canary" {
			w.WriteHeader(http.StatusUnauthorized)
			io.WriteString(w, `{"kind":"Status","message":"who are you"}`)
			return
		}
		if r.Method != http.MethodPatch || r.URL.Path != "/api/v1/nodes/gpu-1" || r.Header.Get("Content-Type") != "application/merge-patch+json" {
			http.Error(w, "what", http.StatusBadRequest)
			return
		}
		var patch struct{ Metadata map[string]map[string]*string }
		json.NewDecoder(r.Body).Decode(&patch)
		if changes, ok := patch.Metadata["labels"]; ok && changes == nil {
			clear(labels) // what null means
		} else {
			apply(labels, changes)
		}
		json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]any{"name": "gpu-1", "labels": labels}})
	}))
	defer server.Close()
	account := t.TempDir()
	write(t, account, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	write(t, account, "token", "canary\n")
	node := nodeOf(t, server, account)

	one := "1"
	after, err := node.Patch(t.Context(), map[string]*string{Prefix + "old": nil, Prefix + "new": &one})
	want := map[string]string{"disk": "ssd", Prefix + "new": "1"}
	if err != nil || !maps.Equal(after, want) || !maps.Equal(labels, want) {
		t.Errorf("after the patch %v (%v), the server has %v; want %v", after, err, labels, want)
	}
	if after, err := node.Patch(t.Context(), nil); err != nil || !maps.Equal(after, want) {
		t.Errorf("asked without changes: %v, %v", after, err)
	}

	write(t, account, "token", "renewed") // as the kubelet does; the server knows it not
	_, err = node.Patch(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "401 Unauthorized: who are you") || strings.Contains(err.Error(), "renewed") {
		t.Errorf("a refusal reads: %v", err)
	}

	write(t, account, "ca.crt", string(strangeCA(t)))
	if _, err := nodeOf(t, server, account).Patch(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server with another certificate: %v", err)
	}
}

func TestInNoPod(t *testing.T) {
	if _, err := InCluster("gpu-1", func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "this is no pod") {
		t.Errorf("outside of a pod: %v", err)
	}
	env := func(string) string { return "1" }
	if _, err := newNode("gpu-1", env, t.TempDir()); err == nil {
		t.Error("no certificate, and no error")
	}
	account := t.TempDir()
	write(t, account, "ca.crt", "nothing")
	if _, err := newNode("gpu-1", env, account); err == nil {
		t.Error("a certificate that is none, and no error")
	}
}

// strangeCA is a certificate that signed nothing.
func strangeCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	is := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, is, is, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func nodeOf(t *testing.T, server *httptest.Server, account string) *Node {
	t.Helper()
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	node, err := newNode("gpu-1", func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}[name]
	}, account)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
