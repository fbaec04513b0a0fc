package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const gib = 1 << 30

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// healthy is a node with an agent on which every check is ok or has nothing to
// do. Variables are in vars.
func healthy(vars map[string]string) *Env {
	return &Env{
		Lookup:  func(name string) (string, bool) { v, ok := vars[name]; return v, ok },
		Version: "v1",
		Agent:   &Agent{Version: "v1", SwarmKey: "aabbccdd", Members: []Member{{Name: "b", Neighbour: true}}},
		Settings: Settings{
			Endpoint: "https://hub.example", AsksHub: true, Gateway: "127.0.0.1:8090",
			HubCache: "/c/hub", ClientCache: "/c/hub", StateDir: "/c/p2pagent", TokenFile: "/c/token",
			KeyFile: "/k", BindIP: "0.0.0.0", GossipPort: 7946, SwarmPort: 7947, Join: []string{"b:7946"},
		},
		System: System{
			Now:       func() time.Time { return noon },
			Hub:       func(context.Context) (Answer, error) { return Answer{Status: 200, Asked: true, Date: noon}, nil },
			Resolve:   func(_ context.Context, host string) ([]string, error) { return []string{"10.0.0.2"}, nil },
			Dial:      func(context.Context, string) error { return nil },
			Bind:      func(string, string) error { return nil },
			Stat:      func(string) (fs.FileMode, error) { return 0o600, nil },
			Read:      func(string) error { return nil },
			Write:     func(string) error { return nil },
			Statfs:    func(path string) (Filesystem, error) { return roomy, nil },
			Excludes:  func(string) (bool, error) { return true, nil },
			SameMount: func(a, b string) (bool, error) { return true, nil },
			OpenFiles: func() (uint64, error) { return 1 << 16, nil },
			Key:       func(string) (string, error) { return "aabbccdd", nil },
			Token:     func() (bool, error) { return true, nil },
		},
	}
}

var roomy = Filesystem{Dir: "/c", Type: 0xEF53, Free: 100 * gib, Size: 200 * gib, FreeInodes: 1 << 20, Inodes: 1 << 21}

// alone takes the agent away.
func alone(e *Env) {
	e.Agent, e.AgentErr = nil, errors.New("no agent on /s: connect: no such file or directory")
}

func TestHealthyNode(t *testing.T) {
	results := Run(t.Context(), healthy(nil))
	var names []string
	for _, r := range results {
		names = append(names, r.Check)
		if r.Verdict != OK && r.Check != "ports" || r.Seen == "" || r.Do != "" {
			t.Errorf("%+v", r)
		}
	}
	want := []string{"agent", "proxy", "variables", "hub", "clock", "token", "token file", "cache", "locks", "mount", "space", "inodes", "open files", "swarm key", "ports", "members", "join"}
	if !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
}

// TestChecks breaks one thing at a time.
func TestChecks(t *testing.T) {
	gateway := map[string]string{"HF_ENDPOINT": "http://localhost:8090", "HF_HUB_DISABLE_XET": "1"}
	with := func(more ...string) map[string]string {
		out := map[string]string{}
		maps.Copy(out, gateway)
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	filesystem := func(change func(*Filesystem)) func(*Env) {
		return func(e *Env) {
			e.Statfs = func(string) (Filesystem, error) { f := roomy; change(&f); return f, nil }
		}
	}
	answer := func(a Answer) func(*Env) {
		return func(e *Env) { e.Hub = func(context.Context) (Answer, error) { return a, nil } }
	}
	members := func(list ...Member) func(*Env) { return func(e *Env) { e.Agent.Members = list } }
	crowd := make([]Member, 300)
	refused := fmt.Errorf("no agent: %w", fs.ErrPermission)
	for _, c := range []struct {
		name    string
		vars    map[string]string
		change  func(*Env)
		check   string
		verdict Verdict
		seen    string
		do      string
	}{
		{"no agent", nil, alone, "agent", Warn, "no agent on /s", "p2pagent agent"},
		{"socket of somebody else", nil, func(e *Env) { e.Agent, e.AgentErr = nil, refused }, "agent", Warn, "permission denied", "group"},
		{"ports of somebody else's agent", nil, func(e *Env) { e.Agent, e.AgentErr = nil, refused }, "ports", Skipped, "the agent has them", ""},
		{"another build", nil, func(e *Env) { e.Version = "v2" }, "agent", Warn, "the agent is v1, this command v2", "restart"},

		{"hf_transfer", map[string]string{"HF_HUB_ENABLE_HF_TRANSFER": "1"}, nil, "variables", Warn, "no timeout", "unset HF_HUB_ENABLE_HF_TRANSFER"},
		{"hf_transfer off", map[string]string{"HF_HUB_ENABLE_HF_TRANSFER": "0"}, nil, "variables", OK, "", ""},
		{"gateway", with(), nil, "variables", OK, "", ""},
		{"xet", with("HF_HUB_DISABLE_XET", ""), nil, "variables", Warn, "Xet", "HF_HUB_DISABLE_XET=1"},
		{"xet from the gateway", with("HF_HUB_DISABLE_XET", ""), func(e *Env) { e.GatewayXet = true }, "variables", OK, "", ""},
		{"no xet from the gateway", with(), func(e *Env) { e.GatewayXet = true }, "variables", Warn, "50 GB", "unset HF_HUB_DISABLE_XET"},
		{"offline and the gateway", with("HF_HUB_OFFLINE", "YES"), nil, "variables", Warn, "never ask", "unset HF_ENDPOINT"},
		{"impatient", with("HF_HUB_ETAG_TIMEOUT", "3", "HF_HUB_DOWNLOAD_TIMEOUT", "5"), nil, "variables", Warn, "HF_HUB_ETAG_TIMEOUT=3", "HF_HUB_DOWNLOAD_TIMEOUT=60"},
		{"patient", with("HF_HUB_ETAG_TIMEOUT", "30", "HF_HUB_DOWNLOAD_TIMEOUT", "0"), nil, "variables", OK, "", ""},
		{"impatient with the Hub", map[string]string{"HF_HUB_ETAG_TIMEOUT": "3"}, nil, "variables", OK, "", ""},
		{"another cache", nil, func(e *Env) { e.ClientCache = "/home/u/hub" }, "variables", Warn, "clients look into /home/u/hub, the agent's cache is /c/hub", "p2pagent env"},

		{"no upstream", nil, func(e *Env) { e.AsksHub = false }, "hub", Skipped, "never asks", ""},
		{"its own upstream", nil, func(e *Env) { e.Endpoint = "http://localhost:8090" }, "hub", Fail, "its own gateway, 127.0.0.1:8090", "--hub-endpoint"},
		{"broken", nil, answer(Answer{Status: 503}), "hub", Fail, "HTTP: https://hub.example answers 503", "try again later"},
		{"limited", nil, answer(Answer{Status: 429}), "hub", Warn, "429", "wait"},
		{"portal", nil, answer(Answer{Status: 200, Page: true, Asked: true}), "hub", Fail, "a web page answers", "sign in"},
		{"moved", nil, answer(Answer{Status: 308}), "hub", Warn, "redirects (308)", "HF_ENDPOINT"},
		{"proxy with a password", nil, answer(Answer{Status: 407}), "hub", Fail, "407", "password"},
		{"anonymous", nil, answer(Answer{Status: 401}), "hub", OK, "answers in 0 ms", ""},

		{"slow", nil, answer(Answer{Date: noon.Add(61 * time.Second)}), "clock", Fail, "1m1s behind", "NTP"},
		{"fast", nil, answer(Answer{Date: noon.Add(-2 * time.Hour)}), "clock", Fail, "2h0m0s ahead of", "NTP"},
		{"a minute", nil, answer(Answer{Date: noon.Add(time.Minute)}), "clock", OK, "within 1m1s", ""},
		{"no date", nil, answer(Answer{}), "clock", Skipped, "does not tell", ""},

		{"bad token", nil, answer(Answer{Status: 401, Asked: true}), "token", Fail, "refuses it (401)", "valid token"},
		{"no token", nil, func(e *Env) { e.Token = func() (bool, error) { return false, nil } }, "token", Skipped, "public", ""},
		{"token not readable", nil, func(e *Env) { e.Token = func() (bool, error) { return false, errors.New("read token from /t: gone") } }, "token", Fail, "/t: gone", "readable"},
		{"a mirror without whoami", nil, answer(Answer{Status: 404, Asked: true}), "token", Skipped, "404", ""},

		{"world", nil, func(e *Env) { e.Stat = func(string) (fs.FileMode, error) { return 0o644, nil } }, "token file", Warn, "/c/token has mode 0644", "chmod 600"},
		{"not mine", nil, func(e *Env) { e.Read = func(string) error { return fs.ErrPermission } }, "token file", Fail, "permission denied", "readable"},
		{"not mine and not used", map[string]string{"HF_TOKEN": "x"}, func(e *Env) { e.Read = func(string) error { return fs.ErrPermission } }, "token file", OK, "0600", ""},
		{"none", nil, func(e *Env) { e.Stat = missing }, "token file", Skipped, "none", ""},
		{"named and none", nil, func(e *Env) { e.Stat, e.TokenNamed = missing, true }, "token file", Fail, "not exist", "HF_TOKEN_PATH"},
		{"no place", nil, func(e *Env) { e.TokenFile = "" }, "token file", Skipped, "none", ""},

		{"NFS", nil, filesystem(func(f *Filesystem) { f.Type = 0x6969 }), "cache", Warn, "/c/hub is on NFS", "a disk of this node"},
		{"Lustre", nil, filesystem(func(f *Filesystem) { f.Type = 0x0BD00BD0 }), "cache", Warn, "Lustre", "a disk of this node"},
		{"FUSE", nil, filesystem(func(f *Filesystem) { f.Type = 0x65735546 }), "cache", Warn, "FUSE", "a disk of this node"},
		{"CIFS", nil, filesystem(func(f *Filesystem) { f.Type = 0xFF534D42 }), "cache", Warn, "CIFS", "a disk of this node"},
		{"container", nil, filesystem(func(f *Filesystem) { f.Type = 0x794C7630 }), "cache", Warn, "overlay", "mount a volume"},
		{"memory", nil, filesystem(func(f *Filesystem) { f.Type = 0x01021994 }), "cache", Warn, "tmpfs", "disk"},
		{"of tomorrow", nil, filesystem(func(f *Filesystem) { f.Type = 0x1234 }), "cache", OK, "filesystem 0x1234", ""},
		{"broken disk", nil, func(e *Env) {
			e.Statfs = func(string) (Filesystem, error) { return Filesystem{}, errors.New("I/O error") }
		}, "cache", Fail, "I/O error", "kernel's log"},
		{"read only, an agent runs", nil, func(e *Env) { e.Write = func(string) error { return fs.ErrPermission } }, "cache", OK, "", ""},
		{"read only", nil, func(e *Env) { alone(e); e.Write = func(string) error { return fs.ErrPermission } }, "cache", Fail, "permission denied", "--state-dir"},

		{"locks that do nothing", nil, func(e *Env) { e.Excludes = func(string) (bool, error) { return false, nil } }, "locks", Warn, "keep nobody out", "no second agent"},
		{"no locks", nil, func(e *Env) { e.Excludes = func(string) (bool, error) { return false, errors.ErrUnsupported } }, "locks", Warn, "no locks", "no second agent"},
		{"locks not tried", nil, func(e *Env) { e.Excludes = func(string) (bool, error) { return false, fs.ErrPermission } }, "locks", Skipped, "permission", ""},
		{"two mounts", nil, func(e *Env) { e.SameMount = func(a, b string) (bool, error) { return a == b, nil } }, "mount", Fail, "/c/p2pagent and /c/hub", "--state-dir"},
		{"mount not tried", nil, func(e *Env) { e.SameMount = func(a, b string) (bool, error) { return false, fs.ErrPermission } }, "mount", Skipped, "permission", ""},
		{"full", nil, filesystem(func(f *Filesystem) { f.Free = gib - 1 }), "space", Fail, "1.0 of 200.0 GiB free", "p2pagent rm"},
		{"nearly full", nil, filesystem(func(f *Filesystem) { f.Free = 19 * gib }), "space", Warn, "19.0 of 200.0 GiB free", "p2pagent rm"},
		{"no inodes", nil, filesystem(func(f *Filesystem) { f.FreeInodes = 999 }), "inodes", Fail, "999 of", "inodes"},
		{"few inodes", nil, filesystem(func(f *Filesystem) { f.FreeInodes = 9999 }), "inodes", Warn, "9999 of", "inodes"},
		{"Btrfs", nil, filesystem(func(f *Filesystem) { f.FreeInodes, f.Inodes = 0, 0 }), "inodes", Skipped, "as needed", ""},
		{"256 files", nil, func(e *Env) { e.OpenFiles = func() (uint64, error) { return 256, nil } }, "open files", Fail, "256", "LimitNOFILE"},
		{"1024 files", nil, func(e *Env) { e.OpenFiles = func() (uint64, error) { return 1024, nil } }, "open files", Warn, "1024", "LimitNOFILE"},

		{"a bad key", nil, func(e *Env) {
			e.Key = func(string) (string, error) { return "", errors.New("/k: not a swarm key: found 3 characters") }
		}, "swarm key", Fail, "found 3 characters", "keygen"},
		{"another key", nil, func(e *Env) { e.Key = func(string) (string, error) { return "11223344", nil } }, "swarm key", Fail, "/k is 11223344, the agent has aabbccdd", "same file"},
		{"key of the agent", nil, func(e *Env) { e.KeyFile = "" }, "swarm key", Skipped, "the agent has aabbccdd", ""},
		{"open agent", nil, func(e *Env) { e.KeyFile, e.Agent.SwarmKey = "", "open" }, "swarm key", Warn, "open", "keygen"},
		{"open", nil, func(e *Env) { alone(e); e.KeyFile, e.Insecure = "", true }, "swarm key", Warn, "open", "keygen"},
		{"no key", nil, func(e *Env) { alone(e); e.KeyFile = "" }, "swarm key", Warn, "does not start", "--swarm-key-file"},

		{"free ports", nil, alone, "ports", OK, "gossip-port 7946/tcp, gossip-port 7946/udp, swarm-port 7947/tcp", ""},
		{"UDP port taken", nil, func(e *Env) { alone(e); e.Bind = taken("udp", "0.0.0.0:7946") }, "ports", Fail, "gossip-port 7946/udp: in use", "--gossip-port"},
		{"swarm port taken", nil, func(e *Env) { alone(e); e.Bind = taken("tcp", "0.0.0.0:7947") }, "ports", Fail, "swarm-port 7947/tcp: in use", "--swarm-port"},
		{"any port", nil, func(e *Env) { alone(e); e.GossipPort, e.SwarmPort = 0, 0 }, "ports", Skipped, "any", ""},

		{"no agent, no members", nil, alone, "members", Skipped, "no agent", ""},
		{"closed swarm port", nil, members(Member{Name: "b", Fault: "i/o timeout"}, Member{Name: "c", Neighbour: true}), "members", Fail, "can't reach 1 of 2: b: i/o timeout", "open TCP 7947 and TCP and UDP 7946"},
		{"gossip only", nil, members(Member{Name: "b"}, Member{Name: "c", Neighbour: true}), "members", Warn, "no stream yet with 1 of 2, seen by gossip only: b", "open TCP 7947"},
		{"a crowd", nil, members(crowd...), "members", OK, "300 in sight, streams with 0", ""},
		{"joined nobody", nil, func(e *Env) { e.Agent.Members, e.Agent.JoinFault = nil, "swarm key differs" }, "members", Fail, "swarm key differs", "--join"},
		{"refused", nil, func(e *Env) { e.Agent.Refused = []string{"x: swarm key differs"} }, "members", Warn, "x: swarm key differs", "same key"},
		{"nobody to join", nil, members(), "members", OK, "none in sight", ""},

		{"no join", nil, func(e *Env) { e.Join = nil }, "join", Skipped, "--join", ""},
		{"dead peer", nil, func(e *Env) { e.Dial = func(context.Context, string) error { return errors.New("refused") } }, "join", Fail, "none answers: refused", "open the gossip port"},
		{"one dead peer", nil, func(e *Env) {
			e.Join = []string{"b:1", "b:2"}
			e.Dial = func(_ context.Context, addr string) error {
				if addr == "10.0.0.2:1" {
					return errors.New("refused")
				}
				return nil
			}
		}, "join", Warn, "1 of 2 answer; refused", "open the gossip port"},
		{"no such name", nil, func(e *Env) {
			e.Resolve = func(context.Context, string) ([]string, error) { return nil, errors.New("no such host") }
		}, "join", Fail, "no such host", "correct --join"},
	} {
		e := healthy(c.vars)
		if c.change != nil {
			c.change(e)
		}
		r := find(t, e, c.check)
		if r.Verdict != c.verdict || !strings.Contains(r.Seen, c.seen) || !strings.Contains(r.Do, c.do) {
			t.Errorf("%s: %+v, want %s %q %q", c.name, r, c.verdict, c.seen, c.do)
		}
		if needs := r.Verdict == Warn || r.Verdict == Fail; needs != (r.Do != "") {
			t.Errorf("%s: %+v: what to do belongs to warnings and failures", c.name, r)
		}
	}
}

func find(t *testing.T, e *Env, check string) Result {
	t.Helper()
	for _, r := range Run(t.Context(), e) {
		if r.Check == check {
			return r
		}
	}
	t.Fatalf("no check %q", check)
	return Result{}
}

func missing(string) (fs.FileMode, error) { return 0, fs.ErrNotExist }

func taken(network, addr string) func(network, addr string) error {
	return func(n, a string) error {
		if n == network && a == addr {
			return errors.New("in use")
		}
		return nil
	}
}

// TestUnreachableHub: clock and token say that there was nothing to judge.
func TestUnreachableHub(t *testing.T) {
	e := healthy(nil)
	e.Hub = func(context.Context) (Answer, error) { return Answer{}, errors.New("gone") }
	if r := find(t, e, "hub"); r.Verdict != Fail || r.Seen != "no request: gone" {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"clock", "token"} {
		if r := find(t, e, name); r.Verdict != Skipped {
			t.Errorf("%+v", r)
		}
	}
}

// TestRunIsBounded: a check that listens to its context says what it saw, one
// that can't be interrupted failed, and neither holds up the others.
func TestRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		list := []check{
			{[]string{"a", "b"}, func(context.Context, *Env) []Result { <-stuck; return make([]Result, 2) }},
			one("c", func(ctx context.Context, _ *Env) Result { <-ctx.Done(); return fail("x", "%v", context.Cause(ctx)) }),
			one("d", func(context.Context, *Env) Result { return ok("fine") }),
		}
		begun := time.Now()
		got := run(t.Context(), healthy(nil), list)
		if took := time.Since(begun); took != Limit+grace {
			t.Errorf("took %v", took)
		}
		for i, want := range []Result{{"a", Fail, errLate.Error(), ""}, {"b", Fail, errLate.Error(), ""}, {"c", Fail, errLate.Error(), "x"}, {"d", OK, "fine", ""}} {
			if r := got[i]; r.Check != want.Check || r.Verdict != want.Verdict || r.Seen != want.Seen {
				t.Errorf("%+v, want %+v", r, want)
			}
		}
		close(stuck)
	})
}
