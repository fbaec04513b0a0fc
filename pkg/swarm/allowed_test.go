package swarm

import (
	"testing"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/pkg/pieces"
)

// Large blobs have large pieces: the extents fetched at once must not need more
// room than upstream's buffers have.
func TestExtentsFitIntoMemory(t *testing.T) {
	pace := plan.NewPace(8)
	for now := time.Unix(0, 0); pace.Allowed() < 8; now = now.Add(250 * time.Millisecond) {
		pace.Observe(now, plan.Fleet{Rate: float64(pace.Allowed()) * 1e9, Fetchers: 1, Open: pace.Allowed()}, 4<<20, pace.Allowed())
		if now.After(time.Unix(600, 0)) {
			t.Fatal("the pace does not get to 8")
		}
	}
	for size, want := range map[int64]int{1 << 30: 8, 20 << 30: 4, 60 << 30: 2} {
		b := pieces.Blob{Size: size}
		n := &Node{cfg: Config{Memory: 32 << 20}, pace: pace, blobs: map[pieces.Blob]*blobState{b: {blob: b}}}
		if got := n.allowed(); got != want {
			t.Errorf("%d GiB: %d extents at once, want %d", size>>30, got, want)
		}
		n.cfg.Memory = 1
		if got := n.allowed(); got != 1 {
			t.Errorf("%d GiB without room: %d extents, want 1", size>>30, got)
		}
	}
}
