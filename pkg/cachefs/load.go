package cachefs

import (
	"fmt"
	"path"
	"strings"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// Names below the state folder.
const (
	lockFile   = "lock"
	stageDir   = "tmp"
	partialDir = "partial"
	proofDir   = "proof"
	outlineDir = "outline"
	removalDir = "removal"

	journalSuffix = ".journal"
)

func dataName(b pieces.Blob, nonce uint64) string {
	return path.Join(partialDir, fmt.Sprintf("%s.%016x", b, nonce))
}

func proofName(d pieces.Digest) string { return path.Join(proofDir, d.String()) }

// load brings the state folder into order and reads it.
func (c *Cache) load() error {
	for _, dir := range []string{stageDir, partialDir, proofDir, outlineDir, removalDir} {
		if err := c.state.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	c.stage = durable.NewStage(c.state, stageDir)
	swept, err := c.stage.Sweep()
	if err != nil {
		return err
	}
	if err := c.loadProofs(); err != nil {
		return err
	}
	if err := c.finishRemovals(); err != nil {
		return err
	}
	more, err := c.loadPartials()
	swept.Add(more)
	if swept.Files > 0 {
		c.log.Info("removed unfinished files of an earlier run", "files", swept.Files, "bytes", swept.Bytes)
	}
	return err
}

func (c *Cache) loadProofs() error {
	entries, err := c.state.ReadDir(proofDir)
	for _, e := range entries {
		if d, err := pieces.ParseDigest(e.Name()); err == nil {
			c.proofs[d] = true
		}
	}
	return err
}

// loadPartials believes what the journals say: data was synced before each
// record. Files that no journal vouches for are removed and counted.
func (c *Cache) loadPartials() (swept durable.Amount, err error) {
	entries, err := c.state.ReadDir(partialDir)
	if err != nil {
		return swept, err
	}
	known := map[string]bool{}
	for _, e := range entries {
		name := path.Join(partialDir, e.Name())
		if !strings.HasSuffix(name, journalSuffix) {
			continue
		}
		if p := c.loadPartial(name); p != nil {
			c.partials[p.blob] = p
			known[name], known[p.dataName()] = true, true
		}
	}
	for _, e := range entries {
		name := path.Join(partialDir, e.Name())
		if known[name] {
			continue
		}
		swept.Add(c.state.Measure(name))
		if err := c.state.RemoveAll(name); err != nil {
			return swept, err
		}
	}
	return swept, nil
}

// loadPartial returns nil when journal or data can't be used.
func (c *Cache) loadPartial(name string) *partial {
	raw, err := c.state.ReadFile(name, maxJournalBytes)
	if err != nil {
		c.log.Warn("journal not readable; its pieces must be fetched again", "journal", name, "err", err)
		return nil
	}
	j, err := parseJournal(raw)
	if err != nil {
		c.log.Warn("journal not readable; its pieces must be fetched again", "journal", name, "err", err)
		return nil
	}
	p := j.partial()
	info, err := c.state.Lstat(p.dataName())
	if p.journalName() != name || err != nil || !info.Mode().IsRegular() || info.Size() != p.blob.Size {
		return nil // a crash came before the data file, or after it had become whole
	}
	if j.good < len(raw) { // the next record might not cover all of a bad tail
		c.log.Warn("journal ends in a bad record; cut off", "journal", name, "bytes", len(raw)-j.good)
		if err := c.stage.WriteFile(c.state, name, raw[:j.good], 0o600); err != nil {
			c.log.Warn("can't cut a journal", "journal", name, "err", err)
			return nil
		}
	}
	return p
}

// partial returns what the journal proves.
func (j *journal) partial() *partial {
	p := newPartial(j.blob, j.nonce)
	p.journalEnd = int64(j.good)
	for _, s := range j.statements {
		p.held.Add(s.Index)
		p.statements[s.Index] = s
	}
	p.resumeHash(j.hashed, j.state)
	return p
}
