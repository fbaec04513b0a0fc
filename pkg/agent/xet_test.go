package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"p2pagent/internal/layout"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/xet"
)

// xetRights wires a client of the Hub's store as cmd/p2pagent does.
func (r *room) xetRights(own *hub.Client) func(*hub.Client) agent.Rights {
	grantOf := func(h *hub.Client) func(context.Context, pieces.Repo, pieces.Commit) (xet.Grant, error) {
		return func(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (xet.Grant, error) {
			t, err := h.XetToken(ctx, repo, commit)
			return xet.Grant{Token: t.Token, CAS: t.URL, Life: t.Life}, err
		}
	}
	client, err := xet.New(xet.Options{Transport: own.Foreign(), Insecure: true, Grant: grantOf(own)})
	r.must(err)
	return func(h *hub.Client) agent.Rights {
		c := client.As(grantOf(h))
		return agent.Rights{
			Hub: h,
			Source: func(o agent.Opening) seeder.Source {
				return c.NewSource(xet.SourceOptions{Outline: o.Outline, Plain: o.Plain, Doubt: o.Doubt, Delta: o.Delta})
			},
			Layout: func(ctx context.Context, o *pieces.Outline, f pieces.File) (layout.Layout, error) {
				file, err := xet.NewFile(o.Repo, o.Commit, f)
				if err != nil {
					return layout.Layout{}, err
				}
				return c.Layout(ctx, file)
			},
		}
	}
}

// deltas lets an agent make files out of others that are here.
func (r *room) deltas(dir string) agent.Deltas {
	index, err := layout.OpenIndex(filepath.Join(dir, "layouts"), r.furniture.taps.logger())
	r.must(err)
	r.t.Cleanup(func() { index.Close() })
	return agent.Deltas{Index: index, Cuts: xet.Cuts()}
}

// text is n bytes that compress.
func text(seed int, n int) hubtest.Content {
	var b bytes.Buffer
	for i := seed; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d word%d\n", i, i%997)
	}
	return hubtest.Bytes(b.Bytes()[:n])
}

// xetModel adds a repository whose files the store has in different forms.
func (r *room) xetModel() pieces.Commit {
	return r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: []hubtest.File{
		{Path: "model-1.safetensors", Content: hubtest.Generated(1, 21<<20+5)},
		{Path: "model-2.safetensors", Content: hubtest.Generated(2, 9<<20)},
		{Path: "vocab.txt", Content: text(3, 6<<20)},
		{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))},
	}})
}

// allGet has every member fetch at once, and checks what they get.
func (r *room) allGet(commit pieces.Commit) {
	r.t.Helper()
	outline := r.hub.Outline("org/m", commit)
	r.fetchAll("org/m", func(res agent.Result) { checkSnapshot(r.t, res.Path, outline) })()
}

// A cold fleet costs the store one copy of its stored bytes, and the Hub one
// listing; nothing but the small files comes by plain HTTP.
func TestXetOneCopy(t *testing.T) {
	inRoomWith(t, 4, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{XorbSize: 5 << 20}}, retries: -1}, func(t *testing.T, r *room) {
		commit := r.xetModel()
		r.allGet(commit)
		s, stored := r.hub.Stats(), r.hub.Stored("org/m", string(commit))
		if s.StoredBytes < stored || float64(s.StoredBytes) > 1.01*float64(stored) {
			t.Errorf("the store sent %d bytes of %d", s.StoredBytes, stored)
		}
		if s.BodyBytes != 7 || s.Calls[hubtest.Info] != 1 || s.Calls[hubtest.Tree] != 1 || s.Calls[hubtest.Token] > 4 || s.TokensAtCDN != 0 {
			t.Errorf("%d bytes by plain HTTP, calls %v, %d tokens at the CDN", s.BodyBytes, s.Calls, s.TokensAtCDN)
		}
	})
}

// X04: the listing has "redacted" for the Xet names.
//
// It is as if there were none: everything comes by plain HTTP.
func TestX04RedactedNames(t *testing.T) {
	inRoomWith(t, 2, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{Redacted: true}}, retries: -1}, func(t *testing.T, r *room) {
		commit := r.xetModel()
		r.allGet(commit)
		if s := r.hub.Stats(); s.Copies != 1 || s.StoredBytes != 0 || s.Calls[hubtest.Token] != 0 {
			t.Errorf("%v copies, %d stored bytes, calls %v", s.Copies, s.StoredBytes, s.Calls)
		}
	})
}

// A store that can't be used costs nothing but time: the same extents come by
// plain HTTP, once.
func TestXetFallsBack(t *testing.T) {
	for name, f := range map[string]hubtest.Fault{
		"no token":     {Do: hubtest.Status, Route: hubtest.Token, Status: 403},
		"no CAS":       {Do: hubtest.Status, Route: hubtest.CAS, Status: 503},
		"refused URLs": {Do: hubtest.Expired, Route: hubtest.Xorb},
	} {
		t.Run(name, func(t *testing.T) {
			inRoomWith(t, 2, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{}}, retries: -1}, func(t *testing.T, r *room) {
				commit := r.xetModel()
				r.hub.Fail(f)
				r.allGet(commit)
				if s := r.hub.Stats(); s.Copies != 1 || s.StoredBytes != 0 {
					t.Errorf("%v copies, %d stored bytes", s.Copies, s.StoredBytes)
				}
			})
		})
	}
}

// Upstream flips a byte of a xorb whose first piece is offered before the xorb is
// whole. When it is, its pieces are taken back from everybody, and fetched again;
// nobody is banned, and nobody fetches a second copy of the rest.
func TestXetFlippedByteInFleet(t *testing.T) {
	inRoomWith(t, 4, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{Plain: true, XorbSize: 9 << 20}}, retries: -1}, func(t *testing.T, r *room) {
		commit := r.xetModel()
		first := r.hub.FirstXorb("org/m", string(commit), "model-1.safetensors")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.Xorb, Path: first, At: 1 << 20, Nth: 1})
		r.allGet(commit)
		s, stored := r.hub.Stats(), r.hub.Stored("org/m", string(commit))
		if again := s.StoredBytes - stored; again < 8<<20 || again > 22<<20 || s.BodyBytes != 7 {
			t.Errorf("%d stored bytes more than %d, %d by plain HTTP", again, stored, s.BodyBytes)
		}
		for _, u := range r.units {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			st, err := u.side.Status(ctx)
			cancel()
			if err != nil || len(st.Bans) > 0 {
				t.Errorf("bans %v, %v", st.Bans, err)
			}
		}
	})
}

// Whoever asks how the job is while the store sends nothing is told which host it
// is that does not.
func TestXetStatusDuringAStall(t *testing.T) {
	inRoomWith(t, 1, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{}}, retries: -1}, func(t *testing.T, r *room) {
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: []hubtest.File{{Path: bigShard, Content: hubtest.Generated(1, 9<<20)}}})
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.Xorb, At: 1 << 20})
		u := r.units[0]
		var wg sync.WaitGroup
		wg.Go(func() { u.fetchWithin(14*time.Second, "org/m") })
		time.Sleep(13 * time.Second)
		if v := u.Jobs()[0]; v.Host != "cdn.test" || v.Waiting != "upstream" {
			t.Errorf("job %+v", v)
		}
		wg.Wait()
	})
}

// noise returns n bytes that don't compress.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// tuned returns a model of which a twentieth of the bytes changed, all over, and
// into which some were put near its beginning, so that all behind lies elsewhere.
func tuned(first []byte) []byte {
	const edits = 12
	second := slices.Insert(bytes.Clone(first), len(first)/9, noise(2, 1234)...)
	for i := range edits {
		at := (2*i + 1) * len(second) / (2 * edits)
		copy(second[at:at+len(first)/20/edits], noise(byte(3+i), len(first)/20/edits))
	}
	return second
}

func oneFile(path string, b []byte) []hubtest.File {
	return []hubtest.File{{Path: path, Content: hubtest.Bytes(b)}}
}

// A second revision of which 5 % of the bytes changed, all over, with all behind the
// first few bytes moved, costs upstream and between members less than 8 % of its
// size: the rest is copied from the first. A fine-tune in another repository, with
// another name, does not cost more.
func TestXetDelta(t *testing.T) {
	const size = 96 << 20
	if testing.Short() {
		t.Skip("hashes a gigabyte")
	}
	for name, next := range map[string]func(r *room, second []byte) (string, pieces.Commit){
		"next revision": func(r *room, second []byte) (string, pieces.Commit) {
			return "org/m", r.hub.Push("org/m", "main", oneFile("model.safetensors", second))
		},
		"another repository": func(r *room, second []byte) (string, pieces.Commit) {
			return "other/tuned", r.hub.AddRepo(hubtest.RepoSpec{ID: "other/tuned", Files: oneFile("weights/tuned.safetensors", second)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inRoomWith(t, 3, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{Plain: true, Dedup: true}}, retries: -1}, func(t *testing.T, r *room) {
				first := noise(1, size)
				second := tuned(first)
				r.allGet(r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: oneFile("model.safetensors", first)}))
				id, commit := next(r, second)
				time.Sleep(time.Minute) // longer than a name may be old
				r.hub.ResetStats()
				outline := r.hub.Outline(id, commit)
				r.fetchAll(id, func(res agent.Result) {
					checkSnapshot(t, res.Path, outline)
					moved := res.Upstream + res.FromPeers()
					t.Logf("%.2f %% moved: %d from upstream, %d from members", 100*float64(moved)/size, res.Upstream, res.FromPeers())
					if moved > size*8/100 || res.Here < size*92/100 {
						t.Errorf("%d bytes moved, %d were here, of %d", moved, res.Here, len(second))
					}
				})()
				if s := r.hub.Stats(); s.StoredBytes > size*8/100 || s.BodyBytes > 0 {
					t.Errorf("the store sent %d bytes, plain HTTP %d", s.StoredBytes, s.BodyBytes)
				} else {
					t.Logf("the store sent %.2f %% of %d bytes, calls %v", 100*float64(s.StoredBytes)/float64(len(second)), len(second), s.Calls)
				}
			})
		})
	}
}

// duplicates are files that the store has the chunks of in common: one with
// another header, one that is put together from parts of the first and new bytes,
// one that has a run of its own bytes twice.
func duplicates(n int) []hubtest.File {
	noise := func(seed byte, n int) []byte {
		b := make([]byte, n)
		rand.NewChaCha8([32]byte{seed}).Read(b)
		return b
	}
	a, fresh := noise(1, n), noise(2, n/4)
	return []hubtest.File{
		{Path: "a.safetensors", Content: hubtest.Bytes(a)},
		{Path: "b.safetensors", Content: hubtest.Bytes(slices.Concat(noise(3, 12345), a[4321:]))},
		{Path: "c.safetensors", Content: hubtest.Bytes(slices.Concat(a[n/8:n/2], fresh, a[n*5/8:n*3/4]))},
		{Path: "d.safetensors", Content: hubtest.Bytes(slices.Concat(noise(4, n/2), a[:n/8], noise(4, n/2)))},
	}
}

// Chunks that several files of a snapshot have leave the store once, whichever
// members fetch the files.
func TestXetDuplicatesOneCopy(t *testing.T) {
	inRoomWith(t, 4, furniture{hub: hubtest.Options{Xet: &hubtest.Xet{Plain: true, Dedup: true}}, retries: -1}, func(t *testing.T, r *room) {
		commit := r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: duplicates(20 << 20)})
		r.allGet(commit)
		s, stored := r.hub.Stats(), r.hub.Stored("org/m", string(commit))
		ratio := float64(s.StoredBytes) / float64(stored)
		t.Logf("the store sent %d bytes of %d: %.4f; calls %v", s.StoredBytes, stored, ratio, s.Calls)
		if ratio > 1.01 || s.BodyBytes > 0 {
			t.Errorf("the store sent %d bytes of %d, %d came by plain HTTP", s.StoredBytes, stored, s.BodyBytes)
		}
	})
}
