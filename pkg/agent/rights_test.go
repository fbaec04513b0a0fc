package agent_test

import (
	"sync"
	"testing"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

const good = "hf_thattheHubknows"

// inClosedRoom is a room whose Hub has a private and a gated model that one token
// opens. No member has it.
func inClosedRoom(t *testing.T, n int, xet *hubtest.Xet, test func(t *testing.T, r *room, commits map[string]pieces.Commit)) {
	inRoomWith(t, n, furniture{retries: -1, hub: hubtest.Options{Token: good, Xet: xet}}, func(t *testing.T, r *room) {
		files := []hubtest.File{
			{Path: "w1", Content: hubtest.Generated(1, 9<<20)}, {Path: "w2", Content: hubtest.Generated(2, 5<<20)},
			{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))},
		}
		commits := map[string]pieces.Commit{}
		for _, spec := range []hubtest.RepoSpec{{ID: "org/private", Private: true}, {ID: "org/gated", Gated: true}} {
			spec.Files = files
			commits[spec.ID] = r.hub.AddRepo(spec)
		}
		test(t, r, commits)
	})
}

func kindOf(err error) agent.Kind {
	if err == nil {
		return ""
	}
	return agentError(err).Kind
}

// lets tells whether the unit may be asked for a ref by the token: it finds out
// what the ref means and the Hub lets the token read it.
func (u *unit) lets(token, ref string) agent.Kind {
	v, err := u.viewAs(token, ref)
	if err == nil {
		err = u.MayRead(u.room.t.Context(), v, token)
	}
	return kindOf(err)
}

// G19: a private or gated repository, and a node without a right to it.
//
// Whoever has a token that the Hub accepts gets the files, fetched by that right,
// on several nodes at once with one copy from the Hub; everybody else is refused as
// by the Hub. The right ends with the caller's files: what nobody with a right asked
// for can't be had by this node afterwards. The token goes to the Hub alone.
func TestG19ByTheCallersRight(t *testing.T) {
	for name, xet := range map[string]*hubtest.Xet{"plain": nil, "xet": {}} {
		for _, repo := range []string{"org/private", "org/gated"} {
			t.Run(name+" "+repo, func(t *testing.T) {
				inClosedRoom(t, 3, xet, func(t *testing.T, r *room, commits map[string]pieces.Commit) {
					var all sync.WaitGroup
					for _, u := range r.units[:2] {
						all.Go(func() {
							v, err := u.viewAs(good, repo)
							if err != nil {
								t.Error(err)
								return
							}
							for _, path := range []string{"w1", "config.json"} {
								f, _ := v.File(path)
								if got, err := u.readAs(good, v, path); err != nil || int64(len(got)) != f.Blob.Size || kindOf(u.MayRead(t.Context(), v, good)) != "" {
									t.Errorf("%s: %d bytes, %v", path, len(got), err)
								}
							}
						})
					}
					all.Wait()
					stats := r.hub.Stats()
					if want := int64(9<<20 + len(`{"a":1}`)); xet == nil && stats.BodyBytes != want || xet != nil && stats.BodyBytes != int64(len(`{"a":1}`)) {
						t.Errorf("%d bytes by plain HTTP, want %d", stats.BodyBytes, want)
					}
					if stats.TokensAtCDN != 0 || stats.Calls[hubtest.Info] > 4 || stats.Calls[hubtest.Tree] > 4 {
						t.Errorf("%d tokens at the CDN, calls %v", stats.TokensAtCDN, stats.Calls)
					}
					for _, u := range r.units { // the third knows of it from the others
						for token, want := range map[string]map[string]agent.Kind{
							good: {"org/private": "", "org/gated": ""}, "": {"org/private": agent.NotFound, "org/gated": agent.Denied},
							"hf_another": {"org/private": agent.Denied, "org/gated": agent.Denied},
						} {
							if got := u.lets(token, repo); got != want[repo] {
								t.Errorf("%s lets %q: %q, want %q", u.node.Name, token, got, want[repo])
							}
						}
					}
					// Its agents may still swap what is here, and get no more.
					if res, err := r.units[2].fetch(repo+"@"+string(commits[repo]), func(q *agent.Request) { q.Include = []string{"w1"} }); err != nil || res.Upstream != 0 {
						t.Errorf("what members hold: %+v %v", res, err)
					}
					for _, u := range r.units {
						if _, err := u.fetch(repo+"@"+string(commits[repo]), nil); kindOf(err) != agent.Denied && kindOf(err) != agent.NotFound {
							t.Errorf("what nobody holds: %v", err)
						}
					}
				})
			})
		}
	}
}

// G19: the node has a token, which the Hub does not let read the repository.
//
// The caller's right counts, and the node's own is not tried again for each file.
func TestG19OwnTokenRefused(t *testing.T) {
	inClosedRoom(t, 1, nil, func(t *testing.T, r *room, _ map[string]pieces.Commit) {
		u := r.restart(0, func(o *agent.Options) { o.Rights = o.As("hf_ofthenode") })
		for _, repo := range []string{"org/private", "org/gated"} {
			v, err := u.viewAs(good, repo)
			r.must(err)
			r.hub.ResetStats()
			for _, path := range []string{"w1", "w2", "config.json"} {
				if _, err := u.readAs(good, v, path); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
			if c := r.hub.Stats().Calls; c[hubtest.Head] > 3 || c[hubtest.Get] > 3 {
				t.Errorf("%s: calls %v", repo, c)
			}
			if kind := u.lets("", repo); kind == "" {
				t.Errorf("%s is open to all", repo)
			}
		}
	})
}

// G19: callers with and without a right ask at the same moment.
//
// Each gets the answer that is theirs.
func TestG19CallersAtOnce(t *testing.T) {
	inClosedRoom(t, 2, nil, func(t *testing.T, r *room, _ map[string]pieces.Commit) {
		var all sync.WaitGroup
		for _, u := range r.units {
			for _, token := range []string{"", "hf_another", good, "", good, "hf_a third"} {
				all.Go(func() {
					if got := u.lets(token, "org/private"); (got == "") != (token == good) {
						t.Errorf("%s lets %q: %q", u.node.Name, token, got)
					}
				})
			}
		}
		all.Wait()
	})
}

// G19: a private repository moved on, and the cache has an old commit of it.
//
// A caller without a right hears no more of it than the Hub says, and does not keep
// one that has it from the new commit.
func TestG19OldCommitInTheCache(t *testing.T) {
	inClosedRoom(t, 1, nil, func(t *testing.T, r *room, _ map[string]pieces.Commit) {
		u := r.units[0]
		v, err := u.viewAs(good, "org/private")
		r.must(err)
		_, err = u.readAs(good, v, "config.json")
		r.must(err)
		u = r.restart(0, nil)
		now := r.hub.Push("org/private", "main", []hubtest.File{{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":2}`))}})
		for _, token := range []string{"", good, "hf_another", good} {
			if v, err := u.viewAs(token, "org/private"); token == good && (err != nil || v.Outline.Commit != now) {
				t.Errorf("it means %+v (%v), want %s", v, err, now)
			}
			if kind := u.lets(token, "org/private"); (kind == "") != (token == good) {
				t.Errorf("it lets %q: %q", token, kind)
			}
		}
	})
}
