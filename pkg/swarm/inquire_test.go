package swarm_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/internal/wire"
	"p2pagent/pkg/swarm"
)

// Every neighbour is asked and each answers for itself; one that hangs, one that
// says too much and one that is cut off cost two seconds and no more.
func TestNeighboursAnswerInquiries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		f := newFleet(t, newModel(1, 1), 6, cluster.Options{}, func(c *swarm.Config) {
			c.Answers = func(topic string) []byte {
				switch {
				case topic != "name":
					return nil
				case c.Name == "n02":
					<-hung
				case c.Name == "n03":
					return bytes.Repeat([]byte{1}, wire.MaxAnswer+100)
				}
				return []byte(c.Name)
			}
		})
		f.until("all are neighbours", func() bool {
			st, err := f.members[0].node.Status(t.Context())
			return err == nil && len(st.Members) == 5 && !strings.Contains(strings.Join(near(st), ""), "-")
		})
		f.Cut(f.Nodes[0], f.Nodes[4])
		start := time.Now()
		answers, asked, err := f.members[0].node.Inquire(t.Context(), "name")
		if took := time.Since(start); err != nil || asked != 5 || took > 3*time.Second {
			t.Errorf("%d asked, %v, after %v", asked, err, took)
		}
		close(hung)
		got := map[string]string{}
		for id, value := range answers {
			got[id.String()] = string(value)
		}
		want := map[string]string{f.Nodes[1].Peer.String(): "n01", f.Nodes[5].Peer.String(): "n05"}
		if !maps.Equal(got, want) {
			t.Errorf("answers %v, want %v", got, want)
		}
		f.Heal(f.Nodes[0], f.Nodes[4])
		if answers, _, err := f.members[1].node.Inquire(t.Context(), "something else"); err != nil || len(answers) == 0 || len(answers[f.Nodes[0].Peer]) != 0 {
			t.Errorf("%v, %v: a topic that nobody knows has an empty answer", answers, err)
		}
	})
}

// near has a "-" for each member without a stream.
func near(st swarm.Status) (out []string) {
	for _, m := range st.Members {
		out = append(out, map[bool]string{true: "+", false: "-"}[m.Neighbour])
	}
	return out
}
