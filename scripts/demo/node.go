package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"p2pagent/scripts/internal/testmodel"
)

// node is one agent with a cache of its own, and what a fetch there gave.
type node struct {
	*process
	name, binary, dir, socket string
	gossip                    string // address to join
	env                       []string
	took                      time.Duration
	result                    result
	verified                  int
}

// result is the last line that `p2pagent fetch --format json` prints.
type result struct {
	Path     string           `json:"path"`
	Upstream int64            `json:"upstream"`
	Peers    map[string]int64 `json:"peers"` // by name of the member
}

// startAgents makes the swarm key and starts all agents; it returns when each
// answers on its socket. They find one another while they start.
func (d *demo) startAgents(ctx context.Context) error {
	binary := d.work + "/bin/p2pagent"
	key, err := output(ctx, child(d.work, environ(false), binary, "keygen"))
	if err != nil {
		return fmt.Errorf("p2pagent keygen: %w", err)
	}
	keyFile := d.work + "/swarm.key"
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		return err
	}
	var first string
	for i := range d.options.nodes {
		n, err := d.startAgent(i, binary, keyFile, first)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
		first = d.nodes[0].gossip
	}
	return d.each(func(n *node) error {
		return n.until(ctx, n.name+" answers", 30*time.Second, func() bool { return n.answers(ctx) })
	})
}

func (d *demo) startAgent(i int, binary, keyFile, join string) (*node, error) {
	name := fmt.Sprintf("node%d", i+1)
	n := &node{name: name, binary: binary, dir: filepath.Join(d.work, name)}
	n.socket = n.dir + "/socket"
	n.env = environ(d.hub == nil, "HF_HOME="+n.dir+"/hf", "HOME="+n.dir)
	if d.hub != nil {
		n.env = append(n.env, "HF_ENDPOINT="+d.hub.endpoint)
	}
	if err := os.Mkdir(n.dir, 0o755); err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	n.gossip = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	args := []string{"agent", "--state-dir", n.dir + "/state", "--socket", n.socket, "--bind", "127.0.0.1",
		"--gossip-port", strconv.Itoa(ports[0]), "--swarm-port", strconv.Itoa(ports[1]), "--gateway", "off", "--swarm-key-file", keyFile, "--label", "node=" + name}
	if join != "" {
		args = append(args, "--join", join)
	}
	n.process, err = start(name, n.dir+"/log", nil, child(n.dir, n.env, binary, args...))
	return n, err
}

// freePorts finds ports that were free for TCP and UDP a moment ago, below those
// that the kernel gives to outgoing connections. Somebody may still take one
// before the agent does: then the agent says so and the demo fails.
func freePorts(count int) (ports []int, err error) {
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(22000)))
		t, err := net.Listen("tcp4", address)
		if err != nil {
			continue
		}
		defer t.Close() // all stay taken until enough are found
		u, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		defer u.Close()
		if ports = append(ports, t.Addr().(*net.TCPAddr).Port); len(ports) == count {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports: none in 1000 tries", count)
}

func (n *node) command(ctx context.Context, args ...string) (string, error) {
	return output(ctx, child(n.dir, n.env, n.binary, append(args, "--socket", n.socket)...))
}

func (n *node) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := n.command(ctx, "status")
	return err == nil
}

func (n *node) fetch(ctx context.Context, ref string) error {
	began := time.Now()
	out, err := n.command(ctx, "fetch", ref, "--format", "json")
	n.took = time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: p2pagent fetch: %w", n.name, err)
	}
	if err := json.Unmarshal([]byte(lastLine(out)), &n.result); err != nil {
		return fmt.Errorf("%s: p2pagent fetch printed %q: %w", n.name, lastLine(out), err)
	}
	return nil
}

// verify asks the agent, and does not take its word: every file is read again
// and compared with what was made. A model of the real Hub is compared with the
// digests that name its blobs.
func (n *node) verify(ctx context.Context, ref string, files []testmodel.File) error {
	if _, err := n.command(ctx, "verify", ref); err != nil {
		return fmt.Errorf("%s: p2pagent verify: %w", n.name, err)
	}
	want := make(map[string]string)
	for _, f := range files {
		want[f.Path] = f.SHA256
	}
	if len(files) == 0 {
		var err error
		if want, err = blobNames(n.result.Path); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	for path, digest := range want {
		got, err := sum(filepath.Join(n.result.Path, path))
		if err != nil || got != digest {
			return fmt.Errorf("%s: %s has SHA-256 %s, want %s (%v)", n.name, path, got, digest, err)
		}
		n.verified++
	}
	return nil
}

// blobNames returns the files of a snapshot whose blobs are named by a SHA-256.
func blobNames(snapshot string) (map[string]string, error) {
	names := make(map[string]string)
	err := filepath.WalkDir(snapshot, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink == 0 {
			return err
		}
		target, err := os.Readlink(path)
		if digest := filepath.Base(target); len(digest) == sha256.Size*2 {
			names[strings.TrimPrefix(path, snapshot+"/")] = digest
		}
		return err
	})
	return names, err
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}
