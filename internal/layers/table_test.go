package layers

// row is what one package may import of ours, and what it may not do.
type row struct {
	imports []string // in its own files
	tests   []string // besides, in its _test.go files; "*" is everything
	avoids  []string // packages of the standard library that would break a promise
	pure    bool     // no goroutine, no clock
}

// none is for a package that is handed whatever it needs.
var none = []string{"os", "net", "net/http", "syscall", "os/exec", "context", "sync", "log", "log/slog"}

// table is section "Layers" of docs/architecture.md. A package that is not in it
// has no place yet: give it one there and here.
var table = map[string]row{
	"pkg/pieces": {avoids: append([]string{"time"}, none...), pure: true},

	"internal/buffers": {},
	"internal/census":  {imports: []string{"pkg/pieces"}, avoids: []string{"os", "net", "net/http", "os/exec", "syscall"}},
	"internal/desired": {imports: []string{"pkg/pieces"}, avoids: []string{"os", "os/exec", "syscall", "net/http"}},
	"internal/doctor":  {avoids: []string{"os", "os/exec", "syscall", "net/http"}},
	"internal/durable": {tests: []string{"internal/durable/durabletest"}},
	"internal/layout":  {imports: []string{"pkg/pieces", "internal/durable"}},
	"internal/kube":    {},
	"internal/metrics": {imports: []string{"internal/histogram"}, avoids: []string{"os", "os/exec", "syscall"}},
	"internal/page":    {avoids: []string{"os", "os/exec", "syscall"}},
	"internal/minicas": {imports: []string{"pkg/pieces"}, tests: []string{"pkg/xet"}, avoids: []string{"os", "net", "net/http", "syscall", "os/exec", "sync", "log", "log/slog"}, pure: true},
	"internal/plan":    {imports: []string{"pkg/pieces"}, avoids: none, pure: true},
	"internal/rollout": {imports: []string{"pkg/pieces", "internal/desired", "internal/wire", "pkg/swarm"}, avoids: []string{"os", "os/exec", "syscall", "net", "net/http"}},
	"internal/sockopt": {},
	"internal/stall":   {},
	"internal/wire":    {imports: []string{"pkg/pieces"}, avoids: none, pure: true},

	// What is noted by the parts and told to whoever watches.
	"internal/histogram": {},
	"internal/tracing":   {avoids: []string{"os", "os/exec", "syscall", "net/http"}},

	// What removing needs to know.
	"internal/evict":    {avoids: none, pure: true},
	"internal/openfile": {},

	// None of these five imports another.
	"pkg/cachefs": {imports: []string{"pkg/pieces", "internal/durable", "internal/openfile"}, tests: []string{"internal/durable/durabletest", "internal/leaktest"}},
	"pkg/hub":     {imports: []string{"pkg/pieces", "internal/sockopt", "internal/stall"}, tests: []string{"pkg/hub/hubtest", "internal/leaktest"}},
	"pkg/seeder":  {imports: []string{"pkg/pieces", "internal/buffers"}, tests: []string{"internal/leaktest"}, avoids: []string{"os", "net", "net/http"}},
	"pkg/swarm": {imports: []string{"pkg/pieces", "internal/buffers", "internal/histogram", "internal/plan", "internal/sockopt", "internal/stall", "internal/wire"},
		tests: []string{"internal/cluster", "internal/leaktest"}},
	"pkg/xet": {imports: []string{"pkg/pieces", "internal/layout", "internal/stall"}, tests: []string{"pkg/hub/hubtest", "internal/leaktest"}},

	"pkg/agent":   {imports: []string{"pkg/pieces", "internal/tracing", "internal/histogram", "internal/desired", "internal/evict", "internal/layout", "internal/rollout", "pkg/cachefs", "pkg/seeder", "pkg/swarm"}, tests: []string{"*"}},
	"pkg/gateway": {imports: []string{"pkg/pieces", "internal/minicas"}, tests: []string{"*"}},

	"cmd/p2pagent": {imports: []string{"*"}},

	// Helpers of tests. Only tests, scripts and each other may import them.
	"internal/cluster":             {imports: []string{"*"}},
	"internal/durable/durabletest": {imports: []string{"internal/durable"}},
	"internal/docs":                {tests: []string{"*"}},
	"internal/failures":            {},
	"internal/leaktest":            {},
	"internal/layers":              {},
	"pkg/hub/hubtest":              {imports: []string{"pkg/pieces", "pkg/xet"}},

	"scripts/budgets":            {},
	"scripts/failures":           {imports: []string{"internal/failures"}},
	"scripts/demo":               {imports: []string{"scripts/internal/size", "scripts/internal/testmodel"}},
	"scripts/hubserver":          {imports: []string{"pkg/pieces", "pkg/hub/hubtest", "scripts/internal/size", "scripts/internal/testmodel"}},
	"scripts/image":              {}, // a module of its own
	"scripts/k8s/tools/coredns":  {}, // likewise
	"scripts/k8s/tools/pause":    {}, // likewise
	"scripts/page/feed":          {imports: []string{"internal/page"}},
	"scripts/mkmodel":            {imports: []string{"scripts/internal/size", "scripts/internal/testmodel"}},
	"scripts/xet/server":         {}, // a module of its own
	"scripts/internal/size":      {},
	"scripts/internal/testmodel": {tests: []string{"scripts/internal/size"}},
}

// testOnly packages must not end up in the binary.
var testOnly = []string{"internal/cluster", "internal/docs", "internal/durable/durabletest", "internal/failures", "internal/layers", "internal/leaktest", "pkg/hub/hubtest"}

// heavy dependencies are seen by one package, by the command that wires it, and
// by tests.
var heavy = map[string][]string{
	"github.com/libp2p/":                   {"pkg/swarm", "cmd/p2pagent", "internal/cluster"},
	"github.com/marcopolo/simnet":          {"internal/cluster"},
	"github.com/hashicorp/memberlist":      {"pkg/swarm", "cmd/p2pagent", "internal/cluster"},
	"github.com/multiformats/go-multiaddr": {"pkg/swarm", "cmd/p2pagent", "internal/cluster"},
	"github.com/fxamacker/cbor":            {"pkg/pieces"},
	"github.com/prometheus/":               {"internal/metrics"},
	"go.opentelemetry.io/otel":             {"internal/tracing"},
}
