package kube

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accountDir is where a pod finds its service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	patchWait = 15 * time.Second
	maxNode   = 8 << 20 // an object of etcd is far smaller
	maxStatus = 4 << 10
)

var errSilentServer = fmt.Errorf("the API server did not answer within %v", patchWait)

// Node is a node of the cluster that this process is a pod of.
type Node struct {
	url   string
	token string // file; the kubelet renews it
	http  *http.Client
}

// InCluster returns the node called name, with the account that the pod has. It
// reads the server's certificate, and talks to nobody yet.
func InCluster(name string, get func(string) string) (*Node, error) {
	return newNode(name, get, accountDir)
}

func newNode(name string, get func(string) string, account string) (*Node, error) {
	host, port := get("KUBERNETES_SERVICE_HOST"), get("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("no KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: this is no pod")
	}
	pem, err := os.ReadFile(filepath.Join(account, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("the cluster's certificate is none")
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	return &Node{
		url:   "https://" + net.JoinHostPort(host, port) + "/api/v1/nodes/" + url.PathEscape(name),
		token: filepath.Join(account, "token"),
		http:  &http.Client{Transport: t},
	}, nil
}

// labelled is an object's labels. As a patch it leaves them out when there are
// none to change: a null in their place would take away all.
type labelled struct {
	Metadata struct {
		Labels map[string]*string `json:"labels,omitempty"`
	} `json:"metadata"`
}

// Patch changes labels of the node, where nil takes one away, and returns those
// that the node has then. It is one request, of the kind RFC 7386 (merge patch).
func (n *Node) Patch(ctx context.Context, changes map[string]*string) (map[string]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patchWait, errSilentServer)
	defer cancel()
	after, err := n.patch(ctx, changes)
	if err != nil {
		return nil, fmt.Errorf("patch labels of the node: %w", cmp.Or(context.Cause(ctx), err))
	}
	labels := make(map[string]string, len(after.Metadata.Labels))
	for key, value := range after.Metadata.Labels {
		if value != nil {
			labels[key] = *value
		}
	}
	return labels, nil
}

func (n *Node) patch(ctx context.Context, changes map[string]*string) (after labelled, err error) {
	var patch labelled
	patch.Metadata.Labels = changes
	body, err := json.Marshal(patch)
	if err != nil {
		return after, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, n.url+"?fieldManager=p2pagent", bytes.NewReader(body))
	if err != nil {
		return after, err
	}
	token, err := os.ReadFile(n.token)
	if err != nil {
		return after, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := n.http.Do(req)
	if err != nil {
		return after, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return after, refusal(resp)
	}
	return after, json.NewDecoder(io.LimitReader(resp.Body, maxNode)).Decode(&after)
}

// refusal is what the server says: a Status object, as a rule.
func refusal(resp *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxStatus)) // the code says enough
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &status) != nil || status.Message == "" {
		return errors.New(resp.Status)
	}
	return fmt.Errorf("%s: %s", resp.Status, status.Message)
}
