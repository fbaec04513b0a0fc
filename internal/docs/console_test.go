package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p2pagent/pkg/hub/hubtest"
)

// A block of a document that stands behind the line <!-- run --> is run as it is
// printed. A line "node1$ COMMAND" runs in a folder and with an environment of
// that node; "$ COMMAND" is a node's too. The lines below a command must be in
// its output in that order, where "..." stands for anything. A command that ends
// in " &" stays until the block ends; an agent is waited for until it answers.
//
// The environment is what a document does not say: a Hub on loopback that has
// org/name, and free ports. nodeN:7946 means the gossip port of that node, and
// scp is a copy from one node's folder to another's.
func TestConsoleBlocksRun(t *testing.T) {
	mustBuild(t)
	total := 0
	for name, text := range documents(t) {
		for i, block := range runnable(text) {
			total++
			t.Run(fmt.Sprintf("%s-%d", filepath.Base(name), i+1), func(t *testing.T) { play(t, block) })
		}
	}
	if total < 3 {
		t.Errorf("%d blocks were run, there should be more", total)
	}
}

var runMark = regexp.MustCompile("(?ms)^<!-- run -->\n```console\n(.*?)^```$")

func runnable(text string) []string {
	var out []string
	for _, m := range runMark.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

var prompt = regexp.MustCompile(`^([a-z0-9]*)\$ (.*)$`)

// step is one command of a block with the output it should have.
type step struct {
	node, command string
	want          []string
}

func steps(block string) []step {
	var out []step
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		if m := prompt.FindStringSubmatch(line); m != nil {
			out = append(out, step{node: m[1], command: m[2]})
		} else if len(out) > 0 && line != "" {
			out[len(out)-1].want = append(out[len(out)-1].want, line)
		}
	}
	return out
}

// stage is where a block is played.
type stage struct {
	t     *testing.T
	dir   string
	hub   string // URL
	ports map[string]int
	jobs  []*job
}

// job is a command that ends with " &".
type job struct {
	command string
	cmd     *exec.Cmd
	out     *lockedBuffer
	done    chan error
}

// patience bounds every single command of a block.
const patience = 30 * time.Second

func play(t *testing.T, block string) {
	dir, err := os.MkdirTemp("", "p2pd") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, dir: dir, hub: newHub().Start(t), ports: map[string]int{}}
	defer os.RemoveAll(dir)
	defer s.end()
	s.tools()
	for _, st := range steps(block) {
		if command, ok := strings.CutSuffix(st.command, " &"); ok {
			s.start(st.node, command)
			continue
		}
		out, err := s.run(st.node, st.command)
		if err != nil {
			t.Fatalf("%s$ %s: %v\n%s", st.node, st.command, err, out)
		}
		match(t, st, out)
	}
}

// newHub has the repository of all examples.
func newHub() *hubtest.Server {
	hub := hubtest.New(hubtest.Options{})
	hub.AddRepo(hubtest.RepoSpec{ID: "org/name", Files: []hubtest.File{
		{Path: "config.json", Content: hubtest.Bytes([]byte(`{"model_type":"llama"}`))},
		{Path: "model-00001-of-00002.safetensors", Content: hubtest.Generated(1, 10<<20)},
		{Path: "model-00002-of-00002.safetensors", Content: hubtest.Generated(2, 11<<20)},
		{Path: "tokenizer.json", Content: hubtest.Generated(3, 700_000)},
	}})
	return hub
}

// tools puts the program into a folder with what stands in for other ones.
func (s *stage) tools() {
	s.t.Helper()
	err := errors.Join(
		os.Mkdir(filepath.Join(s.dir, "bin"), 0o755),
		os.Symlink(filepath.Join(bin, "p2pagent"), filepath.Join(s.dir, "bin", "p2pagent")),
		os.WriteFile(filepath.Join(s.dir, "bin", "scp"), []byte("#!/bin/sh\nexec cp -p \"$1\" \"${0%/bin/scp}/${2%%:*}/\"\n"), 0o755),
		os.Mkdir(s.home("node1"), 0o755), os.Mkdir(s.home("node2"), 0o755), os.Mkdir(s.home(""), 0o755),
	)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) home(node string) string {
	if node == "" {
		node = "node"
	}
	return filepath.Join(s.dir, node)
}

// metricsAddr is where agents of the documents show their metrics.
const metricsAddr = "127.0.0.1:9464"

var peerName = regexp.MustCompile(`\b(node\d):7946\b`)

// command prepares a line for bash.
func (s *stage) command(ctx context.Context, node, line string) *exec.Cmd {
	line = peerName.ReplaceAllStringFunc(line, func(m string) string {
		return fmt.Sprintf("127.0.0.1:%d", s.port(strings.TrimSuffix(m, ":7946")))
	})
	if strings.Contains(line, metricsAddr) {
		line = strings.ReplaceAll(line, metricsAddr, fmt.Sprintf("127.0.0.1:%d", s.port(node+" metrics")))
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = s.home(node)
	cmd.Env = []string{
		"PATH=" + filepath.Join(s.dir, "bin") + ":" + os.Getenv("PATH"), "HOME=" + s.home(node), "HF_ENDPOINT=" + s.hub,
		"P2PAGENT_BIND=127.0.0.1", fmt.Sprintf("P2PAGENT_GOSSIP_PORT=%d", s.port(node)), "P2PAGENT_SWARM_PORT=0",
		"P2PAGENT_SOCKET=" + s.home(node) + "/agent.sock",
	}
	cmd.WaitDelay = time.Second
	return cmd
}

// port returns the gossip port of a node: one that was free a moment ago, for
// TCP and UDP.
func (s *stage) port(node string) int {
	s.t.Helper()
	for tries := 0; s.ports[node] == 0; tries++ {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			s.t.Fatal(err)
		}
		p, err := net.ListenPacket("udp4", l.Addr().String())
		if err == nil {
			s.ports[node] = l.Addr().(*net.TCPAddr).Port
			p.Close()
		} else if tries > 20 {
			s.t.Fatal(err)
		}
		l.Close()
	}
	return s.ports[node]
}

func (s *stage) run(node, line string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, fmt.Errorf("not done after %v", patience))
	defer cancel()
	out, err := s.command(ctx, node, line).CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return string(out), err
}

func (s *stage) start(node, line string) {
	s.t.Helper()
	j := &job{command: line, cmd: s.command(context.Background(), node, "exec "+line), out: &lockedBuffer{}, done: make(chan error, 1)}
	j.cmd.Stdout, j.cmd.Stderr = j.out, j.out
	if err := j.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { j.done <- j.cmd.Wait() }()
	s.jobs = append(s.jobs, j)
	if strings.HasPrefix(line, "p2pagent agent") {
		s.ready(node, j)
	}
}

// ready waits until the node's agent answers.
func (s *stage) ready(node string, j *job) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		out, err := s.run(node, "p2pagent status")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s$ %s: it does not answer: %s\n%s", node, j.command, out, j.out)
		}
		select {
		case err := <-j.done:
			j.done <- err
			s.t.Fatalf("%s$ %s: ended: %v\n%s", node, j.command, err, j.out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end stops what runs in the background, each by its own process id.
func (s *stage) end() {
	for _, j := range s.jobs {
		j.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, j := range s.jobs {
		select {
		case <-j.done:
		case <-time.After(15 * time.Second):
			s.t.Errorf("%s: still there 15 s after SIGTERM", j.command)
			j.cmd.Process.Kill()
			<-j.done
		}
	}
}

// match wants every line in the output, in order.
func match(t *testing.T, st step, out string) {
	t.Helper()
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	at := 0
	for _, want := range st.want {
		form := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, ".*") + "$")
		for at < len(lines) && !form.MatchString(lines[at]) {
			at++
		}
		if at == len(lines) {
			t.Errorf("%s$ %s: no line %q in this order in\n%s", st.node, st.command, want, out)
			return
		}
		at++
	}
}

// lockedBuffer is written by the command's pipes and read by a failing test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
