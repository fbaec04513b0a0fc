package swarm

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/internal/plan"
	"p2pagent/pkg/pieces"
)

// torn is a store whose files somebody has cut short.
type torn struct{ Store }

func (torn) OpenPiece(pieces.Blob, int) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("too short")), nil
}

// sink is a lane that takes everything.
type sink struct{ lane }

func (sink) Write(b []byte) (int, error)        { return len(b), nil }
func (sink) SetWriteDeadline(t time.Time) error { return nil }

// A piece that is shorter than was promised ends the lane: whoever asked would wait for
// the rest, and take the next answer for it.
func TestATornPieceEndsTheLane(t *testing.T) {
	sv := newServer(torn{}, 1, nil)
	sv.sent = func(peer.ID, int64) { t.Error("it counts as sent") }
	p := plan.Piece{Blob: pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1}), Size: 10}}
	if err := sv.answer(t.Context(), sink{}, "", p, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}
