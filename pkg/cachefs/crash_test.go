package cachefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p2pagent/internal/durable"
	"p2pagent/internal/durable/durabletest"
	"p2pagent/pkg/pieces"
)

var repoB = pieces.Repo{Kind: pieces.Dataset, Name: "other/set"}

// crashRig is a rig on a watched disk.
type crashRig struct {
	*rig
	disk   *durabletest.Disk
	refuse []durable.Kind // what this filesystem can't do
}

func newCrashRig(t testing.TB, prepare func(r *rig)) *crashRig {
	t.Helper()
	dir := memoryDir(t)
	r := &rig{hub: filepath.Join(dir, "top", "hub"), state: filepath.Join(dir, "top", "state"),
		sys: system{flock: flock, free: freeBytes}}
	attic := filepath.Join(dir, "attic")
	for _, d := range []string{r.hub, r.state, attic} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	prepare(r)
	disk, err := durabletest.NewDisk(filepath.Join(dir, "top"), attic)
	if err != nil {
		t.Fatal(err)
	}
	return &crashRig{rig: r, disk: disk}
}

// memoryDir is a folder where a sync costs nothing: here the Disk says what is
// durable, and thousands of real syncs would prove no more.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "p2pagent-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// life opens the cache on the watched disk, does something, and closes it. It
// tells whether the crash came.
func (r *crashRig) life(t testing.TB, do func(c *Cache) error) (crashed bool) {
	t.Helper()
	sys := r.sys
	sys.hook = func(op durable.Op, do func() error) error {
		if slices.Contains(r.refuse, op.Kind) {
			return syscall.EPERM
		}
		return r.disk.Hook(op, do)
	}
	c, err := open(Options{Hub: r.hub, State: r.state, Signer: signer(2)}, sys)
	if err == nil {
		err = do(c)
		closeErr := c.Close()
		if err == nil {
			err = closeErr
		}
	}
	if err != nil && !errors.Is(err, durabletest.ErrStopped) {
		t.Fatalf("not the crash: %v", err)
	}
	return err != nil
}

// story is everything that a member does to its disk.
func story(ctx context.Context, t testing.TB, a, b model) func(c *Cache) error {
	return func(c *Cache) error {
		if err := slowFetch(ctx, t, c, a); err != nil {
			return err
		}
		if _, err := fetch(ctx, t, c, b, "main"); err != nil { // shares a blob
			return err
		}
		_, err := c.Remove(pieces.Ref{Repo: b.outline.Repo, Revision: "main"}, nil)
		return err
	}
}

// slowFetch journals after every piece.
func slowFetch(ctx context.Context, t testing.TB, c *Cache, m model) error {
	if err := c.Begin(ctx, m.outline.Repo, m.blobs()); err != nil {
		return err
	}
	for _, b := range m.blobs() {
		if c.Has(m.outline.Repo, b) {
			continue
		}
		for _, v := range cut(t, b, m.content[b]) {
			if err := errors.Join(c.Put(ctx, v), c.flushAll(ctx)); err != nil {
				return err
			}
		}
		if err := c.Complete(ctx, b); err != nil {
			return err
		}
	}
	_, err := c.Commit(ctx, m.outline, m.outline.Files, "refs/pr/1")
	return err
}

func crashModels() (a, b model) {
	big, small := randomBytes(7, 4<<20+1000), randomBytes(8, 3000)
	a = newModel(repoA, commitA, map[string][]byte{"model.safetensors": big, "sub/w.bin": small},
		map[string][]byte{"config.json": []byte("{}"), "empty": {}})
	b = newModel(repoB, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", map[string][]byte{"shared.bin": big},
		map[string][]byte{"own.json": []byte("[]")})
	return a, b
}

// C07: the process dies, or the power goes, before any step on the disk.
//
// Nothing, everything or some of what was not synced is then taken away. What is left
// contains no lie: no ref without its snapshot, no link to a missing or partial blob.
// The same work, done again, ends as if nothing had happened.
func TestC07CrashAtEveryStep(t *testing.T) {
	a, b := crashModels()
	none := func(*rig) {}
	clean := newCrashRig(t, none)
	if clean.life(t, story(t.Context(), t, a, b)) {
		t.Fatal("crashed by itself")
	}
	want, steps := tree(t, clean.hub), clean.disk.Steps()
	every := 3 // each mode its own third; the modes together stop at every step
	switch {
	case os.Getenv("P2PAGENT_CRASH") == "all":
		every = 1
	case testing.Short():
		every = 11
	}
	for mode := range 4 { // 0: killed; 1: power cut, the unsynced lost; others: by chance
		for stop := 1 + mode%every; stop <= steps; stop += every {
			t.Run(fmt.Sprintf("mode%d/step%d", mode, stop), func(t *testing.T) {
				r := newCrashRig(t, none)
				r.disk.StopAt = stop
				if !r.life(t, story(t.Context(), t, a, b)) {
					t.Fatal("did not crash")
				}
				r.cut(t, mode, stop)
				checkTruth(t, r.hub, a, b)
				r.disk.StopAt = 0
				r.life(t, func(c *Cache) error { checkHeld(t, c, a, b); return story(t.Context(), t, a, b)(c) })
				diff(t, tree(t, r.hub), want)
				checkNoLeftovers(t, r.state)
			})
		}
	}
}

// cut makes the power cut that the mode says. The watching ends with it.
func (r *crashRig) cut(t testing.TB, mode, seed int) {
	t.Helper()
	var rng *rand.Rand
	switch mode {
	case 0:
		return
	case 1:
	default:
		rng = rand.New(rand.NewPCG(uint64(mode), uint64(seed)))
	}
	if err := r.disk.CutPower(rng); err != nil {
		t.Fatal(err)
	}
}

func checkNoLeftovers(t testing.TB, state string) {
	t.Helper()
	for _, dir := range []string{stageDir, partialDir, removalDir} {
		if left, err := os.ReadDir(filepath.Join(state, dir)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// checkTruth checks what a Hub client could see.
func checkTruth(t testing.TB, hub string, models ...model) {
	t.Helper()
	content := map[string][]byte{}
	for _, m := range models {
		for b, data := range m.content {
			content[b.String()] = data
		}
	}
	err := filepath.WalkDir(hub, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(hub, path)
		switch parts := strings.Split(rel, "/"); {
		case len(parts) == 1:
			if rel != tagName {
				t.Errorf("stranger in the root: %s", rel)
			}
		case parts[1] == blobsDir:
			sameContent(t, path, content[e.Name()])
		case parts[1] == snapshotsDir:
			target, err := os.Readlink(path)
			if err != nil {
				t.Errorf("not a link: %v", err)
			}
			sameContent(t, path, content[filepath.Base(target)])
		case parts[1] == refsDir:
			checkRef(t, hub, parts[0], path, models)
		case parts[1] == treesDir:
			checkPresent(t, hub, parts[0], strings.TrimSuffix(e.Name(), ".json"), models)
		default:
			t.Errorf("stranger: %s", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sameContent(t testing.TB, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || want == nil || !slices.Equal(got, want) {
		t.Errorf("wrong content: %s: %d bytes, want %d: %v", path, len(got), len(want), err)
	}
}

func checkRef(t testing.TB, hub, folder, path string, models []model) {
	t.Helper()
	commit, err := os.ReadFile(path)
	if err != nil || len(commit) != 40 {
		t.Errorf("reference %s holds %q, %v", path, commit, err)
	}
	checkPresent(t, hub, folder, string(commit), models)
}

func checkPresent(t testing.TB, hub, folder, commit string, models []model) {
	t.Helper()
	for _, m := range models {
		if m.outline.Repo.Folder() == folder && string(m.outline.Commit) == commit {
			checkSnapshot(t, filepath.Join(hub, folder, snapshotsDir, commit), m)
			return
		}
	}
	t.Errorf("%s of %s is published, but nobody made it", commit, folder)
}

// checkHeld checks what the swarm could be offered.
func checkHeld(t testing.TB, c *Cache, models ...model) {
	t.Helper()
	for _, m := range models {
		for _, b := range m.blobs() {
			held := c.Held(b)
			if held == nil {
				continue
			}
			if n := len(c.Statements(b)); n != held.Count() {
				t.Errorf("%s: %d statements for %d held pieces", b, n, held.Count())
			}
			for i := range held.All() {
				off, n := b.Piece(i)
				if got := readPiece(t, c, b, i); !slices.Equal(got, m.content[b][off:off+n]) {
					t.Errorf("piece %d of %s is held and wrong", i, b)
				}
			}
		}
	}
}

func readPiece(t testing.TB, c *Cache, b pieces.Blob, index int) []byte {
	t.Helper()
	r, err := c.OpenPiece(b, index)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return raw
}

// A client that does not sync leaves a blob; we adopt it; the power goes. The
// proof must not outlive what it proves.
func TestPowerCutAfterAdoption(t *testing.T) {
	a, _ := crashModels()
	b := a.blobs()[3]
	leave := func(r *rig) {
		dir := filepath.Join(r.hub, blobsOf(repoA.Folder()))
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, b.String()), a.content[b], 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(c *Cache) error { return c.Begin(t.Context(), repoA, []pieces.Blob{b}) }
	clean := newCrashRig(t, leave)
	if clean.life(t, begin) {
		t.Fatal("crashed by itself")
	}
	for stop := 1; stop <= clean.disk.Steps()+1; stop++ {
		for mode := range 20 {
			r := newCrashRig(t, leave)
			r.disk.StopAt = stop
			r.life(t, begin)
			r.cut(t, mode, stop)
			r.disk.StopAt = 0
			r.life(t, func(c *Cache) error {
				if c.Has(repoA, b) {
					sameContent(t, filepath.Join(r.hub, blobName(repoA.Folder(), b.Digest)), a.content[b])
				}
				checkHeld(t, c, a)
				return nil
			})
		}
	}
}

// C08: the order of a commit is power-loss safe.
//
// A blob is synced before it is renamed into blobs/, its folder after; links and
// their folders are synced before refs/ is renamed, which is last. testdata/trace.txt
// has every step: one that is missing or late shows there even if no crash test
// happens to need it.
func TestC08Trace(t *testing.T) {
	a, b := crashModels()
	r := newCrashRig(t, func(*rig) {})
	if r.life(t, story(t.Context(), t, a, b)) {
		t.Fatal("crashed by itself")
	}
	got := strings.Join(readable(r.disk.Trace(), r.rig, a, b), "\n") + "\n"
	const file = "testdata/trace.txt"
	if os.Getenv("P2PAGENT_REWRITE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || got != string(want) {
		t.Errorf("the steps changed (P2PAGENT_REWRITE=1 rewrites %s): %v\n%s", file, err, got)
	}
}

// C08: the rules, whatever the trace.
//
// Of every blob, link, listing and ref: what it stands for is durable before it
// appears, and its own folder is synced before the next kind of thing appears.
func TestC08SyncedBeforeShown(t *testing.T) {
	a, b := crashModels()
	r := newCrashRig(t, func(*rig) {})
	if r.life(t, func(c *Cache) error { return errors.Join(slowFetch(t.Context(), t, c, a), second(fetch2(t, c, b))) }) {
		t.Fatal("crashed by itself")
	}
	var kinds []string
	synced, dirty := map[string]bool{}, map[string]bool{} // files that are; folders of the cache that are not
	for _, op := range r.disk.Trace() {
		name := op.Root.Name() + "/" + op.Name
		switch {
		case op.Kind == durable.Write:
			synced[name] = false
		case op.Kind == durable.Sync || op.Kind == durable.SyncData:
			synced[name] = true
		case op.Kind == durable.SyncDir:
			delete(dirty, name)
		case op.Kind == durable.Rename && op.To.Name() == r.hub:
			kind := strings.Split(op.New, "/")
			if len(kind) < 3 {
				continue // CACHEDIR.TAG
			}
			kinds = append(kinds, kind[1])
			if _, isFile := synced[name]; isFile && !synced[name] {
				t.Errorf("%s appears unsynced", op.New)
			}
			for dir := range dirty {
				if kind[1] != blobsDir && !strings.Contains(dir, "/"+kind[1]) {
					t.Errorf("%s appears before folder %s is synced", op.New, dir)
				}
			}
			dirty[r.hub+"/"+filepath.Dir(op.New)] = true
		}
	}
	if kinds = slices.Compact(kinds); !slices.Equal(kinds, []string{blobsDir, snapshotsDir, treesDir, refsDir, blobsDir, snapshotsDir, treesDir, refsDir}) {
		t.Errorf("order %v", kinds)
	}
	if len(dirty) > 0 {
		t.Errorf("never synced: %v", dirty)
	}
}

func fetch2(t *testing.T, c *Cache, m model) (*pieces.Outline, string, error) {
	dir, err := fetch(t.Context(), t, c, m, "main")
	return m.outline, dir, err
}

// C07: killed during the commit, nothing is fetched again.
//
// From the moment all pieces are held and journalled, a kill before any step leaves
// the next run with every piece of every blob that has a journal; only a blob of one
// piece that was not published yet is asked for again.
func TestC07KilledCommitNeedsNoDownload(t *testing.T) {
	m, _ := crashModels()
	hold := func(c *Cache) error {
		err := c.Begin(t.Context(), repoA, m.blobs())
		for _, b := range m.blobs() {
			for _, v := range cut(t, b, m.content[b]) {
				err = errors.Join(err, c.Put(t.Context(), v))
			}
		}
		return errors.Join(err, c.flushAll(t.Context()))
	}
	publish := func(c *Cache) error {
		for _, b := range m.blobs() {
			if err := c.Complete(t.Context(), b); err != nil {
				return err
			}
		}
		_, err := c.Commit(t.Context(), m.outline, m.outline.Files, "main")
		return err
	}
	held := 0 // steps until all is held
	whole := newCrashRig(t, func(*rig) {})
	whole.life(t, func(c *Cache) error {
		err := hold(c)
		held = whole.disk.Steps()
		return errors.Join(err, publish(c))
	})
	every := 1
	if testing.Short() {
		every = 5
	}
	for stop := held + 1; stop <= whole.disk.Steps(); stop += every {
		r := newCrashRig(t, func(*rig) {})
		r.disk.StopAt = stop
		if !r.life(t, func(c *Cache) error { return errors.Join(hold(c), publish(c)) }) {
			t.Fatalf("step %d: did not crash", stop)
		}
		checkTruth(t, r.hub, m)
		r.disk.StopAt = 0
		r.life(t, func(c *Cache) error {
			if err := c.Begin(t.Context(), repoA, m.blobs()); err != nil {
				return err
			}
			for _, b := range m.blobs() {
				if !c.Has(repoA, b) && c.Held(b).Count() < b.Pieces() && b.Pieces() > 1 {
					t.Errorf("step %d: %s must be fetched again", stop, b)
				}
			}
			_, err := fetch(t.Context(), t, c, m, "main")
			return err
		})
	}
}

// readable words steps without what differs from run to run.
func readable(ops []durable.Op, r *rig, models ...model) []string {
	short := []string{r.hub, "hub", r.state, "state", repoA.Folder(), "REPO-A", repoB.Folder(), "REPO-B"}
	for i, m := range models {
		short = append(short, string(m.outline.Commit), fmt.Sprintf("COMMIT-%c", 'A'+i))
		for _, f := range m.outline.Files {
			short = append(short, f.Blob.String(), "<"+filepath.Base(f.Path)+">")
		}
	}
	words := strings.NewReplacer(short...)
	var out []string
	for _, op := range ops {
		line := string(op.Kind) + " " + place1(op.Root, op.Name, words)
		if op.To != nil {
			line += " -> " + place1(op.To, op.New, words)
		} else if op.New != "" {
			line += " -> " + words.Replace(op.New)
		}
		out = append(out, line)
	}
	return out
}

func place1(root *durable.Root, name string, words *strings.Replacer) string {
	dir, base := filepath.Split(name)
	switch {
	case dir == stageDir+"/":
		base = "*"
	case dir == partialDir+"/" && !strings.HasSuffix(base, journalSuffix):
		base = base[:strings.LastIndexByte(base, '.')]
	}
	return words.Replace(root.Name() + ":" + dir + base)
}

// What a crash left of an abandoned attempt must not be taken for the next one's.
func TestPowerCutAfterAbandon(t *testing.T) {
	a, _ := crashModels()
	b := a.blobs()[2]
	ps := cut(t, b, a.content[b])
	var before int // steps up to the Abandon
	live := func(r *crashRig) {
		r.life(t, func(c *Cache) error {
			ctx := t.Context()
			err := errors.Join(c.Begin(ctx, repoA, []pieces.Blob{b}), c.Put(ctx, ps[0]), c.flushAll(ctx))
			before = r.disk.Steps()
			return errors.Join(err, c.Abandon(b), c.Begin(ctx, repoA, []pieces.Blob{b}))
		})
	}
	clean := newCrashRig(t, func(*rig) {})
	live(clean)
	for stop := before + 1; stop <= clean.disk.Steps()+1; stop++ {
		for mode := range 12 {
			r := newCrashRig(t, func(*rig) {})
			r.disk.StopAt = stop
			live(r)
			r.cut(t, mode, stop)
			r.disk.StopAt = 0
			r.life(t, func(c *Cache) error { checkHeld(t, c, a); return nil })
		}
	}
}
