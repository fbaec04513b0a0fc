package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p2pagent/internal/doctor"
	"p2pagent/internal/durable"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/swarm"
)

// patient is this node for the checks. What the agent says of itself comes before
// the settings of this command.
func (s *settings) patient(ctx context.Context) *doctor.Env {
	e := &doctor.Env{Lookup: s.env, Version: versionText(), Settings: s.examined()}
	pid := s.askAgent(ctx, e)
	e.System = s.system(e.Endpoint, pid)
	return e
}

func (s *settings) examined() doctor.Settings {
	file, named := s.tokenFile()
	return doctor.Settings{
		Endpoint: s.HubEndpoint, AsksHub: s.asksHub(), Gateway: s.gatewayAddr(), GatewayXet: s.GatewayXet != offerOff,
		HubCache: s.HubCache, ClientCache: s.clientCache(), StateDir: s.StateDir,
		TokenFile: file, TokenNamed: named, KeyFile: s.SwarmKeyFile, Insecure: s.Insecure,
		BindIP: s.Bind, GossipPort: s.GossipPort, SwarmPort: s.SwarmPort, Join: s.Join,
	}
}

// tokenFile is where clients and the agent look for one.
func (s *settings) tokenFile() (path string, named bool) {
	if path := s.get("HF_TOKEN_PATH"); path != "" {
		return path, true
	}
	if home := s.place.hfHome(); home != "" {
		return filepath.Join(home, "token"), false
	}
	return "", false
}

// askAgent fills in what a running agent says, and returns its process id or 0.
func (s *settings) askAgent(ctx context.Context, e *doctor.Env) (pid int) {
	ctx, cancel := context.WithTimeoutCause(ctx, agentWait, agent.Errorf(agent.NoAgent, "the agent does not answer within %v", agentWait))
	defer cancel()
	st, err := s.client().Status(ctx)
	var peers []agent.Peer
	if err == nil {
		peers, err = s.client().Peers(ctx)
	}
	if err != nil {
		e.AgentErr = err
		return 0
	}
	e.Endpoint, e.AsksHub = st.Endpoint, st.Upstream && !st.Offline
	e.Gateway, e.GatewayXet = st.Gateway, st.GatewayXet
	e.HubCache, e.StateDir = st.HubCache, st.StateDir
	e.Agent = &doctor.Agent{Version: st.Version, SwarmKey: st.SwarmKey, JoinFault: st.JoinFault}
	for _, m := range peers {
		e.Agent.Members = append(e.Agent.Members, doctor.Member{Name: m.Name, Neighbour: m.Neighbour, Fault: m.Fault})
	}
	for _, r := range st.Refused {
		e.Agent.Refused = append(e.Agent.Refused, r.Who+": "+r.Reason)
	}
	return st.PID
}

// system reaches the outside for the checks.
func (s *settings) system(endpoint string, pid int) doctor.System {
	return doctor.System{
		Now:     time.Now,
		Hub:     s.greetHub(endpoint),
		Resolve: net.DefaultResolver.LookupHost,
		Dial:    dialOnce, Bind: bindOnce,
		Stat: modeOf, Read: readable, Write: func(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) },
		Statfs: statfs, Excludes: lockExcludes, SameMount: sameMount,
		OpenFiles: func() (uint64, error) { return openFiles(pid) },
		Key: func(path string) (string, error) {
			key, err := swarm.ReadKeyFile(path)
			return key.Fingerprint(), err
		},
		Token: func() (bool, error) {
			token, err := hub.EnvToken(s.get)()
			return token != "", err
		},
	}
}

// greetHub asks with the agent's own client, so that proxies, certificates and
// the token are as they are for it. A token that can't be read is a check of its
// own.
func (s *settings) greetHub(endpoint string) func(context.Context) (doctor.Answer, error) {
	token := func() (string, error) {
		t, err := hub.EnvToken(s.get)()
		if err != nil {
			return "", nil
		}
		return t, nil
	}
	return func(ctx context.Context) (doctor.Answer, error) {
		c, err := hub.New(hub.Options{Endpoint: endpoint, Token: token, UserAgent: software()})
		if err != nil {
			return doctor.Answer{}, err
		}
		defer c.CloseIdle()
		g, err := c.Whoami(ctx)
		return doctor.Answer{Status: g.Status, Asked: g.Asked, Date: g.Date, Page: g.Page}, err
	}
}

func dialOnce(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func bindOnce(network, addr string) error {
	if network == "udp" {
		conn, err := net.ListenPacket(network, addr)
		return errors.Join(err, closed(conn))
	}
	l, err := net.Listen(network, addr)
	return errors.Join(err, closed(l))
}

func closed(c interface{ Close() error }) error {
	if c == nil {
		return nil
	}
	return c.Close()
}

func modeOf(path string) (fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Mode(), nil
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func statfs(path string) (doctor.Filesystem, error) {
	dir, _ := nearest(path)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return doctor.Filesystem{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return doctor.Filesystem{
		Dir: dir, Type: int64(st.Type), Free: int64(st.Bavail) * int64(st.Bsize), Size: int64(st.Blocks) * int64(st.Bsize),
		FreeInodes: int64(st.Ffree), Inodes: int64(st.Files),
	}, nil
}

// lockExcludes locks a file of its own twice. The file is gone afterwards; the
// agent's own locks are not touched.
func lockExcludes(dir string) (bool, error) {
	f, err := os.CreateTemp(dir, ".p2pagent-doctor-*")
	if err != nil {
		return false, err
	}
	defer f.Close()
	defer os.Remove(f.Name())
	second, err := os.Open(f.Name())
	if err != nil {
		return false, err
	}
	defer second.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return false, err
	}
	err = unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// sameMount tells whether files can be renamed between two folders, or between
// what exists of them.
func sameMount(a, b string) (bool, error) {
	a, _ = nearest(a)
	b, _ = nearest(b)
	from, err := durable.Open(a, nil)
	if err != nil {
		return false, err
	}
	defer from.Close()
	to, err := durable.Open(b, nil)
	if err != nil {
		return false, err
	}
	defer to.Close()
	return from.SameMount(to)
}

// openFiles is the limit of the agent when it is a process here, else the one
// that a process started now would get: Go raises it to the hard limit.
func openFiles(pid int) (uint64, error) {
	if n, err := limitOf(pid); err == nil {
		return n, nil
	}
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Max, err
}

// limitOf reads the limit of another process; its number may mean another one in
// a container, so the name has to fit.
func limitOf(pid int) (uint64, error) {
	proc := "/proc/" + strconv.Itoa(pid)
	name, err := os.ReadFile(proc + "/comm")
	if err != nil || strings.TrimSpace(string(name)) != "p2pagent" {
		return 0, fmt.Errorf("process %d is no p2pagent here", pid)
	}
	f, err := os.Open(proc + "/limits")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max open files"); ok {
			return strconv.ParseUint(strings.Fields(rest + " 0")[0], 10, 64)
		}
	}
	return 0, errors.New("no limit of open files in " + proc)
}
