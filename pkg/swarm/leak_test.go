package swarm

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines left behind. A probe or an exchange that
// memberlist has under way ends by its own bound, after Shutdown returned.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).pushPullNode"))
}
