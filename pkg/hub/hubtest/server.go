package hubtest

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"p2pagent/pkg/pieces"
)

// Options configures a Server; the zero value behaves like the Hub.
type Options struct {
	// PageSize is how many rows a page of a listing has; default 1000.
	PageSize int
	// LFSAbove is the size from which on files are LFS files; default 1 MiB.
	LFSAbove int64
	// SignedFor is how long a signed URL is good; default one hour.
	SignedFor time.Duration
	// Token is the one token that opens private and gated repositories. Any
	// other token is refused with 401; none at all is anonymous.
	Token string
	// Prefix is put before all routes, such as "/hf", for mirrors.
	Prefix string
	// CDN is the base URL of the second host, where LFS bytes come from. Serve,
	// Start and Transport set it. "" serves LFS bytes from the Hub itself.
	CDN string
	// Xet keeps LFS files in a content-addressed store too; nil does not.
	Xet *Xet
}

// Server is a Hub. Its zero value is not usable; New makes one.
type Server struct {
	o Options

	mu     sync.Mutex // guards what follows; not held while bytes are served
	cdn    string
	repos  map[pieces.Repo]*repo
	key    []byte // signs URLs; a new one expires them all
	faults []*rule
	stats  counters

	uploads sync.Mutex // guards the store, and is taken before mu
	store   store

	done chan struct{} // closed by Close: ends stalled responses
	once sync.Once
}

// New returns a Server without repositories. It starts nothing.
func New(o Options) *Server {
	if o.PageSize <= 0 {
		o.PageSize = 1000
	}
	if o.LFSAbove <= 0 {
		o.LFSAbove = 1 << 20
	}
	if o.SignedFor <= 0 {
		o.SignedFor = time.Hour
	}
	if o.Xet != nil {
		x := *o.Xet
		x.TokenFor = cmp.Or(x.TokenFor, 15*time.Minute)
		x.XorbSize = cmp.Or(x.XorbSize, 64<<20)
		o.Xet = &x
	}
	s := &Server{o: o, cdn: o.CDN, repos: make(map[pieces.Repo]*repo), done: make(chan struct{}), store: newStore()}
	s.stats = newCounters()
	s.ExpireSignatures()
	return s
}

// SetCDN tells the Hub where its CDN is: "http://127.0.0.2:1234".
func (s *Server) SetCDN(base string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cdn = base
}

// Close ends responses that stall. Requests after it are answered as before.
func (s *Server) Close() { s.once.Do(func() { close(s.done) }) }

// ExpireSignatures makes every signed URL that was handed out so far invalid.
func (s *Server) ExpireSignatures() {
	key := make([]byte, 32)
	rand.Read(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// signed returns the URL of a blob on the CDN.
func (s *Server) signed(r *repo, f *File) string {
	_, digest := f.ids(true)
	path := "/" + escapePath(r.id.String()) + "/" + digest + "/" + escapePath(f.Path)
	expires := strconv.FormatInt(time.Now().Add(s.o.SignedFor).Unix(), 10)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cdn + path + "?Expires=" + expires + "&Signature=" + s.sign(path, expires)
}

func (s *Server) sign(path, expires string) string {
	h := hmac.New(sha256.New, s.key)
	fmt.Fprintf(h, "%s %s", path, expires)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// valid checks a signed URL.
func (s *Server) valid(u *url.URL) bool {
	expires := u.Query().Get("Expires")
	at, err := strconv.ParseInt(expires, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && time.Now().Unix() < at &&
		hmac.Equal([]byte(u.Query().Get("Signature")), []byte(s.sign(u.EscapedPath(), expires)))
}

// allowed checks the caller's right to a repository; it answers and returns
// false when there is none.
func (s *Server) allowed(w http.ResponseWriter, req *http.Request, r *repo, c call) bool {
	token := req.Header.Get("Authorization")
	switch known := token != "" && token == "Bearer "+s.o.Token; {
	case token != "" && !known && s.o.Token != "":
		refuse(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	case r == nil || r.spec.Private && !known:
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
	case r.spec.Disabled:
		w.Header().Set("X-Error-Message", "Access to this resource is disabled.")
		refuse(w, http.StatusForbidden, "", "Access to this resource is disabled.")
	case r.spec.Gated && !known && c.route.bytes():
		refuse(w, http.StatusForbidden, "GatedRepo", "Access to model "+r.id.Name+" is restricted and you are not in the authorized list.")
	default:
		return true
	}
	return false
}

// refuse answers an error the way the Hub does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	h := w.Header()
	if code != "" {
		h.Set("X-Error-Code", code)
		h.Set("X-Error-Message", message)
	}
	h.Set("X-Request-Id", "Root=1-hubtest")
	writeJSON(w, status, map[string]string{"error": message})
}
