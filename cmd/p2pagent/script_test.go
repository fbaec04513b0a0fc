package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"p2pagent/internal/leaktest"
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

func TestScripts(t *testing.T) { play(t, testscript.Params{Dir: "testdata"}) }

// script runs one script of testdata/faults.
func script(t *testing.T, name string) {
	t.Helper()
	play(t, testscript.Params{Files: []string{"testdata/faults/" + name + ".txt"}})
}

// S22: kill -9 of an agent that has 26 MiB of 64 from upstream.
//
// Nothing is in blobs/, snapshots/ or refs/ before or after. Started again, it
// fetches what is not in the six whole pieces that it had, and no byte more.
func TestS22KilledHalfWay(t *testing.T) { script(t, "killed") }

// S27: proxy variables in the environment, without an exception for loopback.
//
// Two agents and a Hub on loopback never ask the proxy; a Hub elsewhere is asked
// through it.
func TestS27ProxyVariables(t *testing.T) { script(t, "proxy") }

// R15: an agent has a token and uses it.
//
// It is in no log, no answer of either member, and no file.
func TestR15TokenIsNowhere(t *testing.T) { script(t, "token") }

// L11: a daemon that is alive but stuck.
//
// The real program, stopped by SIGSTOP: a second one that wants its socket or its cache
// ends within two seconds, with the process id of the one that has them.
func TestL11AStoppedAgentIsNamed(t *testing.T) { script(t, "stopped") }

// O07: a fetch without a Hub and without peers.
//
// The real program, its cache complete: it succeeds from the disk, prints the commit
// and how old the ref is; `verify` hashes everything again.
func TestO07FetchWithoutANetwork(t *testing.T) { script(t, "offline") }

// O08: fetch as an init container.
//
// The real program exits 0 only when refs/ is written. Any other end, a Hub that stalls or
// is silent, a daemon that was stopped, a ref that can't be written, has a code and a reason.
func TestO08InitContainer(t *testing.T) { script(t, "init") }

// F08: the configuration makes no sense, or can't be read, when it is read again.
//
// The real program goes on with what it had, also with what it was fetching; reload fails with every
// fault by its line, SIGHUP leaves them in the log, and the next good file counts.
func TestF08BrokenConfiguration(t *testing.T) { script(t, "reload") }

func play(t *testing.T, p testscript.Params) {
	t.Helper()
	leaktest.Check(t)
	p.Setup, p.Cmds = setUp, map[string]func(*testscript.TestScript, bool, []string){
		"code": cmdCode, "hub": cmdHub, "ready": cmdReady, "damage": cmdDamage, "lastline": cmdLastLine, "freeport": cmdFreePort,
		"signal": cmdSignal, "until": cmdUntil, "within": cmdWithin, "get": cmdGet, "lint": cmdLint, "conforms": scripts{t}.cmdConforms,
	}
	p.WorkdirRoot = t.TempDir() // its own is left behind when -run leaves scripts out
	testscript.Run(t, p)
}

// setUp gives each script a Hub and an environment of its own.
func setUp(e *testscript.Env) error {
	t := e.T().(hubtest.TB)
	o := hubtest.Options{Token: scriptToken}
	if strings.HasSuffix(e.WorkDir, "xet") { // the script of that name
		o.Xet = &hubtest.Xet{}
	}
	hub := hubtest.New(o)
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
}

// fill puts in what the scripts ask for.
func fill(hub *hubtest.Server) {
	text := func(s string) hubtest.Content { return hubtest.Bytes([]byte(s)) }
	hub.AddRepo(hubtest.RepoSpec{ID: "org/small", Files: []hubtest.File{
		{Path: "config.json", Content: text(`{"a":1}`)}, {Path: "model.safetensors", Content: hubtest.Generated(1, 5<<20)},
		{Path: "sub/vocab.txt", Content: text("a\nb\n")}, {Path: "empty", Content: text("")}, {Path: "one", Content: text("x")},
	}})
	hub.AddRepo(hubtest.RepoSpec{ID: "org/large", Files: []hubtest.File{{Path: "model.safetensors", Content: hubtest.Generated(3, 64<<20)}}})
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

// hub CHANGE changes the Hub; hub bytes N asks what it has sent, hub stored N what
// its store has, hub asked waits until somebody asks its CDN.
func cmdHub(ts *testscript.TestScript, _ bool, args []string) {
	hub := ts.Value(hubKey{}).(*hubtest.Server)
	switch args[0] {
	case "stall":
		hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN})
	case "stallat":
		at, err := strconv.ParseInt(args[1], 10, 64)
		ts.Check(err)
		hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, At: at})
	case "asked":
		waitFor(ts, "the CDN to be asked", func() bool { return hub.Stats().Calls[hubtest.CDN] > 0 })
	case "silent":
		hub.Fail(hubtest.Fault{Do: hubtest.Silent})
	case "overloaded":
		hub.Fail(hubtest.Fault{Do: hubtest.Status, Status: 429, Header: map[string]string{"RateLimit": `"api";r=0;t=250`}})
	case "wrong":
		hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Path: args[1]})
	case "nocas":
		hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CAS, Status: 503})
	case "login":
		hub.Fail(hubtest.Fault{Do: hubtest.Login})
	case "status":
		status, err := strconv.Atoi(args[1])
		ts.Check(err)
		hub.Fail(hubtest.Fault{Do: hubtest.Status, Status: status})
	case "ahead":
		span, err := time.ParseDuration(args[1])
		ts.Check(err)
		date := time.Now().Add(span).UTC().Format(http.TimeFormat)
		hub.Fail(hubtest.Fault{Do: hubtest.Headers, Header: map[string]string{"Date": date}})
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
	case "stored":
		if got := strconv.FormatInt(hub.Stats().StoredBytes, 10); got != args[1] {
			ts.Fatalf("the store sent %s bytes, want %s", got, args[1])
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
	waitFor(ts, "an agent on "+path, func() bool {
		_, err := client.Status(context.Background())
		return err == nil
	})
}

func waitFor(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain for %s", what)
		}
	}
}

// until CMD... runs a command again and again until it succeeds.
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	waitFor(ts, fmt.Sprintf("%q to succeed", args), func() bool { return ts.Exec(args[0], args[1:]...) == nil })
}

// within DURATION CODE CMD... wants a command to end so soon with that exit code.
// It has three tries: a busy machine is slow once, a wait that is too long always.
func cmdWithin(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	best := time.Hour
	for range 3 {
		start := time.Now()
		cmdCode(ts, false, args[1:])
		if best = min(best, time.Since(start)); best <= limit {
			return
		}
	}
	ts.Fatalf("took %v, want at most %v", best, limit)
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

// signal NAME goes to every command in the background; `kill` knows only two.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(unix.SignalNum("SIG" + args[0])))
	}
}

// get STATUS URL asks once; the body is stdout.
func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Get(args[1])
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s answered %s, want %s:\n%s", args[1], got, args[0], body)
	}
	fmt.Fprint(ts.Stdout(), string(body))
}

// lint has promtool check the metrics in stdout.
func cmdLint(ts *testscript.TestScript, _ bool, _ []string) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		ts.Logf("not linted: no promtool here (Debian: prometheus)")
		return
	}
	cmd := exec.Command(tool, "check", "metrics")
	cmd.Stdin = strings.NewReader(ts.ReadFile("stdout"))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		ts.Fatalf("promtool check metrics: %v\n%s", err, out)
	}
}
