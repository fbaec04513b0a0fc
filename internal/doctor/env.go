package doctor

import (
	"context"
	"io/fs"
	"time"
)

// Env is a node as the checks see it.
type Env struct {
	Settings
	System

	Lookup  Lookup
	Version string // of this program

	Agent    *Agent // the one that runs here; nil without one
	AgentErr error  // why there is none
}

// Settings are those of the agent that runs, else what one started now would use.
type Settings struct {
	Endpoint    string // URL of the Hub
	AsksHub     bool
	Gateway     string // host:port, "" for none
	GatewayXet  bool   // it serves files as Xet too
	HubCache    string
	ClientCache string // where a client with this environment looks, "" when it can't be told
	StateDir    string
	TokenFile   string // "" when there is no place for one
	TokenNamed  bool   // by HF_TOKEN_PATH
	KeyFile     string // "" for none
	Insecure    bool
	BindIP      string
	GossipPort  int
	SwarmPort   int
	Join        []string // host:port
}

// Agent is what a running agent says of itself.
type Agent struct {
	Version   string
	SwarmKey  string // fingerprint
	JoinFault string // why no member was joined
	Members   []Member
	Refused   []string // who was not let in, and why
}

// Member is another member as the agent sees it.
type Member struct {
	Name      string
	Neighbour bool   // a stream is open
	Fault     string // why it could not be dialled
}

// System is what the checks do to the outside. Functions that take a context end
// with it, or soon after.
type System struct {
	Now func() time.Time

	Hub     func(ctx context.Context) (Answer, error)
	Resolve func(ctx context.Context, host string) ([]string, error)
	Dial    func(ctx context.Context, addr string) error // TCP, closed at once
	Bind    func(network, addr string) error             // tcp or udp, closed at once

	Stat      func(path string) (fs.FileMode, error)
	Read      func(path string) error // can this user?
	Write     func(dir string) error  // can this user make files in it?
	Statfs    func(path string) (Filesystem, error)
	Excludes  func(dir string) (bool, error)  // does a lock on a file in dir keep a second one out?
	SameMount func(a, b string) (bool, error) // can files be renamed between them?
	OpenFiles func() (uint64, error)          // the most that an agent may open

	Key   func(path string) (fingerprint string, err error)
	Token func() (set bool, err error)
}

// Answer is what the Hub says when it is asked whose token this is.
type Answer struct {
	Status int
	Asked  bool      // a token was sent
	Date   time.Time // zero when it does not tell
	Page   bool      // a web page
}

// Filesystem is what statfs says of the deepest folder of a path that exists.
type Filesystem struct {
	Dir        string
	Type       int64 // magic number
	Free, Size int64 // bytes, for an ordinary user
	FreeInodes int64
	Inodes     int64 // 0 where they are made as needed
}
