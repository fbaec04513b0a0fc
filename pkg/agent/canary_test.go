package agent_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"p2pagent/pkg/hub/hubtest"
)

// taps hear all that members write: to each other before it is encrypted, to any
// host but the Hub, and to their logs.
type taps struct{ streams, gossip, hosts, logs tap }

type tap struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (t *tap) note(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all.Write(b)
}

func (t *tap) Write(b []byte) (int, error) { t.note(b); return len(b), nil }

func (t *tap) heard() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.all.Bytes())
}

// logger returns one that writes everything down; nil discards.
func (t *taps) logger() *slog.Logger {
	if t == nil {
		return nil
	}
	return slog.New(slog.NewTextHandler(&t.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// request notes what is asked of other hosts than the Hub, which get no token.
func (t *taps) request(r *http.Request) {
	if u, _ := url.Parse(hubtest.MemoryHub); t != nil && r.URL.Host != u.Host {
		fmt.Fprintln(&t.hosts, r.Method, r.URL, r.Header)
	}
}

// tappedGossip hears packets, and both ways of the streams that this member dials.
type tappedGossip struct {
	memberlist.Transport
	taps *taps
}

func (g tappedGossip) WriteTo(b []byte, addr string) (time.Time, error) {
	g.taps.gossip.note(b)
	return g.Transport.WriteTo(b, addr)
}

func (g tappedGossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	c, err := g.Transport.DialTimeout(addr, timeout)
	return tappedStream{c, g.taps}, err
}

type tappedStream struct {
	net.Conn
	taps *taps
}

func (s tappedStream) Write(b []byte) (int, error) {
	s.taps.gossip.note(b)
	return s.Conn.Write(b)
}

func (s tappedStream) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.taps.gossip.note(b[:n])
	return n, err
}

// G18: a caller's token, between members.
//
// With two members that have no token, everything that they write is looked
// through: streams, lanes and gossip before they are encrypted, requests to other
// hosts than the Hub, logs at debug level, and every file. No form of the token and
// no hash of it is there, of one that is accepted as of one that is refused.
func TestG18TokenBetweenMembers(t *testing.T) {
	for name, xet := range map[string]*hubtest.Xet{"plain": nil, "xet": {}} {
		t.Run(name, func(t *testing.T) {
			heard := &taps{}
			f := furniture{retries: -1, hub: hubtest.Options{Token: good, Xet: xet}, taps: heard}
			inRoomWith(t, 2, f, func(t *testing.T, r *room) {
				content := hubtest.Generated(1, 9<<20)
				r.hub.AddRepo(hubtest.RepoSpec{ID: "org/private", Private: true, Files: []hubtest.File{
					{Path: "w", Content: content}, {Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))},
				}})
				const wrong = "hf_thattheHubrefuses"
				for _, u := range r.units {
					for _, token := range []string{wrong, good} {
						v, err := u.viewAs(token, "org/private")
						if err == nil {
							err = u.MayRead(t.Context(), v, token)
						}
						if (err == nil) != (token == good) {
							t.Fatalf("%q: %v", token, err)
						}
						if err != nil {
							continue
						}
						for _, path := range []string{"w", "config.json"} {
							if _, err := u.readAs(token, v, path); err != nil {
								t.Fatal(err)
							}
						}
						if _, err := u.Refs(t.Context(), r.ref("org/private").Repo, token); err != nil {
							t.Error(err)
						}
					}
				}
				time.Sleep(2 * time.Minute) // push and pull of gossip's state
				for _, u := range r.units {
					for _, j := range u.Jobs() {
						fmt.Fprintf(&heard.logs, "%+v\n", j)
					}
				}
				piece := make([]byte, 64)
				if _, err := content.ReadAt(piece, 4<<20); err != nil {
					t.Fatal(err)
				}
				files := r.files()
				for what, seen := range map[string]struct{ all, some []byte }{ // what must be there shows that the tap hears
					"streams and lanes": {heard.streams.heard(), piece}, "the names in streams": {heard.streams.heard(), []byte("resolve/org/private@main")},
					"gossip": {heard.gossip.heard(), []byte(r.Nodes[1].Name)}, "other hosts": {heard.hosts.heard(), []byte("GET http://cdn.test")},
					"logs": {heard.logs.heard(), []byte("org/private")}, "files": {files, []byte(`{"a":1}`)},
				} {
					if !bytes.Contains(seen.all, seen.some) {
						t.Errorf("%s: the tap is deaf: %d bytes without %q", what, len(seen.all), seen.some)
					}
					for _, token := range []string{good, wrong} {
						for form, text := range formsOf(token) {
							if at := bytes.Index(seen.all, text); at >= 0 {
								t.Errorf("%s: the token as %s in %q", what, form, seen.all[max(0, at-60):at+len(text)])
							}
						}
					}
				}
			})
		})
	}
}

// formsOf is what a token may look like where it leaks.
func formsOf(token string) map[string][]byte {
	sum := sha256.Sum256([]byte(token))
	return map[string][]byte{
		"it is": []byte(token), "hex": []byte(hex.EncodeToString([]byte(token))), "its hash": sum[:], "its hash in hex": []byte(hex.EncodeToString(sum[:])),
		"base64": []byte(base64.RawStdEncoding.EncodeToString([]byte(token))[:24]),
	}
}

// files returns the content and the names of all files of all machines, and of
// the notes that stand for one.
func (r *room) files() []byte {
	var all bytes.Buffer
	for _, u := range r.units {
		all.Write(u.notes.raw)
		r.check(filepath.WalkDir(u.node.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			raw, err := os.ReadFile(path)
			all.WriteString(path + "\n")
			all.Write(raw)
			return err
		}))
	}
	return all.Bytes()
}
