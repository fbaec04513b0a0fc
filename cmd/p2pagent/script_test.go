package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
)

// TestMain lets scripts run the binary under test as `p2pagent`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"p2pagent": scriptMain})
}

// scriptMain is main that also leaves its exit code in a file, for scripts that
// stop it by a signal.
func scriptMain() {
	code := run()
	if path := os.Getenv("EXIT_CODE_FILE"); path != "" {
		if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", code), 0o644); err != nil {
			panic(err)
		}
	}
	os.Exit(code)
}

type hubKey struct{}

const scriptToken = "hf_canarycanarycanary"

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			t := e.T().(hubtest.TB)
			hub := hubtest.New(hubtest.Options{Token: scriptToken})
			fill(hub)
			e.Values[hubKey{}] = hub
			for _, kv := range [][2]string{
				{"HF_ENDPOINT", hub.Start(t)}, {"HF_HOME", e.WorkDir + "/hf"}, {"HOME", e.WorkDir + "/home"},
				{"XDG_RUNTIME_DIR", e.WorkDir + "/run"}, {"P2PAGENT_SOCKET", e.WorkDir + "/run/s"}, {"TOKEN", scriptToken},
				{"P2PAGENT_BIND", "127.0.0.1"}, {"P2PAGENT_GOSSIP_PORT", "0"}, {"P2PAGENT_SWARM_PORT", "0"},
				{"P2PAGENT_GATEWAY", "off"},
			} {
				e.Setenv(kv[0], kv[1])
			}
			return os.Mkdir(filepath.Join(e.WorkDir, "run"), 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": cmdCode, "hub": cmdHub, "ready": cmdReady, "damage": cmdDamage, "lastline": cmdLastLine, "freeport": cmdFreePort, "signal": cmdSignal,
		},
	})
}

// fill puts in what the scripts ask for.
func fill(hub *hubtest.Server) {
	text := func(s string) hubtest.Content { return hubtest.Bytes([]byte(s)) }
	hub.AddRepo(hubtest.RepoSpec{ID: "org/small", Files: []hubtest.File{
		{Path: "config.json", Content: text(`{"a":1}`)}, {Path: "model.safetensors", Content: hubtest.Generated(1, 5<<20)},
		{Path: "sub/vocab.txt", Content: text("a\nb\n")}, {Path: "empty", Content: text("")}, {Path: "one", Content: text("x")},
	}})
	hub.AddRepo(hubtest.RepoSpec{ID: "org/gated", Gated: true, Files: []hubtest.File{{Path: "a", Content: text("a")}}})
	hub.AddRepo(hubtest.RepoSpec{ID: "datasets/org/data", Files: []hubtest.File{{Path: "d.csv", Content: text("1,2\n")}}})
	// Nobody has the room for this one.
	hub.AddRepo(hubtest.RepoSpec{ID: "org/huge", Files: []hubtest.File{
		{Path: "w.bin", Content: hubtest.Generated(2, 8<<40), SHA256: strings.Repeat("ab", 32)},
	}})
}

// code N CMD... runs a command and wants exactly that exit code.
func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	path := ts.MkAbs(".exit")
	os.Remove(path)
	ts.Setenv("EXIT_CODE_FILE", path)
	defer ts.Setenv("EXIT_CODE_FILE", "")
	_ = ts.Exec(args[1], args[2:]...) // its error says less than the code
	if got := strings.TrimSpace(ts.ReadFile(path)); got != strconv.Itoa(want) {
		ts.Fatalf("exit code %s, want %d", got, want)
	}
}

// hub stall|down|slow|heal|bytes N changes the Hub or asks what it has sent.
func cmdHub(ts *testscript.TestScript, _ bool, args []string) {
	hub := ts.Value(hubKey{}).(*hubtest.Server)
	switch args[0] {
	case "stall":
		hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN})
	case "silent":
		hub.Fail(hubtest.Fault{Do: hubtest.Silent})
	case "wrong":
		hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Path: args[1]})
	case "heal":
		hub.Heal()
	case "reset":
		hub.ResetStats()
	case "bytes":
		want, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		if got := hub.Stats().BodyBytes; got != want {
			ts.Fatalf("the Hub sent %d bytes, want %d", got, want)
		}
	default:
		ts.Fatalf("unknown: hub %s", args[0])
	}
}

// ready waits until an agent answers on the socket.
func cmdReady(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.Getenv("P2PAGENT_SOCKET")
	if len(args) > 0 {
		path = args[0]
	}
	client := agent.NewClient(path)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, err := client.Status(context.Background())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no agent: %v", err)
		}
	}
}

// damage flips the first byte of a file, keeping its length.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 0)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b, 0)
	ts.Check(err)
}

// lastline sets SNAPSHOT to the last line of stdout, which must be a folder.
func cmdLastLine(ts *testscript.TestScript, _ bool, _ []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	last := lines[len(lines)-1]
	if info, err := os.Stat(last); err != nil || !info.IsDir() {
		ts.Fatalf("last line %q is no folder: %v", last, err)
	}
	ts.Setenv("SNAPSHOT", last)
}

// freeport NAME... sets variables to ports that are free now, for TCP and UDP.
func cmdFreePort(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close()
		ts.Setenv(name, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
}

// signal TERM|INT goes to every command in the background; `kill` has no TERM.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]))
	}
}
