package census

import (
	"fmt"
	"strings"

	"p2pagent/pkg/pieces"
)

// Topics of an inquiry. That of levels goes on with repository@commit.
const (
	Holdings = "holdings/1"
	levels   = "levels/1/"
)

// Cells is how many stretches the pieces of a commit are cut into, unless they
// are fewer.
const Cells = 240

// maxRows bounds the commits of one answer, maxBytes each.
const (
	maxRows  = 64
	maxBytes = 64 << 10
)

// Row is what a member has of one commit. Sizes are bytes.
type Row struct {
	_        struct{} `cbor:",toarray"`
	Repo     string
	Commit   string
	Ref      string
	Size     int64 // of the files that it wants, 0 when it does not know
	Held     int64 // of them here, verified
	Upstream int64 // that upstream sent it for them
	Ready    bool  // all are here under their names
}

// EncodeRows says what a member has: the first 64 rows.
func EncodeRows(rows []Row) ([]byte, error) {
	return pieces.Marshal(rows[:min(len(rows), maxRows)])
}

// DecodeRows reads what EncodeRows made, and refuses what no member says.
func DecodeRows(raw []byte) ([]Row, error) {
	var rows []Row
	if err := pieces.Unmarshal(raw, maxBytes, &rows); err != nil {
		return nil, fmt.Errorf("decode holdings: %w", err)
	}
	if len(rows) > maxRows {
		return nil, fmt.Errorf("decode holdings: %d commits, more than %d", len(rows), maxRows)
	}
	for _, r := range rows {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("decode holdings: %w", err)
		}
	}
	return rows, nil
}

func (r Row) check() error {
	ref, err := pieces.ParseRef(r.Ref)
	if err != nil {
		return err
	}
	if ref.Repo.String() != r.Repo || !pieces.IsCommit(r.Commit) {
		return fmt.Errorf("%q at %q is not what %s means", r.Repo, r.Commit, ref)
	}
	for _, n := range []int64{r.Size, r.Held, r.Upstream} {
		if n < 0 || n > pieces.MaxBlobSize {
			return fmt.Errorf("%d bytes of %s", n, ref)
		}
	}
	return nil
}

// ID names a commit of a repository.
func ID(repo, commit string) string { return repo + "@" + commit }

// ParseID is its inverse.
func ParseID(id string) (pieces.Repo, pieces.Commit, bool) {
	ref, err := pieces.ParseRef(id)
	if err != nil || !pieces.IsCommit(ref.Revision) {
		return pieces.Repo{}, "", false
	}
	return ref.Repo, pieces.Commit(ref.Revision), true
}

// Levels is the topic of how much of each stretch of a commit a member holds.
func Levels(id string) string { return levels + id }

// ParseLevels is its inverse.
func ParseLevels(topic string) (pieces.Repo, pieces.Commit, bool) {
	id, ok := strings.CutPrefix(topic, levels)
	if !ok {
		return pieces.Repo{}, "", false
	}
	return ParseID(id)
}

// Cover is how much of a commit a member holds: of so many pieces, each stretch as
// a digit from 0, nothing, to 9, all. The zero Cover is for one that it does not
// know.
type Cover struct {
	_      struct{} `cbor:",toarray"`
	Pieces int
	Levels string
}

// EncodeCover answers Levels.
func EncodeCover(c Cover) ([]byte, error) { return pieces.Marshal(c) }

// DecodeCover reads what EncodeCover made, and refuses what no member says.
func DecodeCover(raw []byte) (Cover, error) {
	var c Cover
	if err := pieces.Unmarshal(raw, maxBytes, &c); err != nil {
		return Cover{}, fmt.Errorf("decode levels: %w", err)
	}
	if c.Pieces < 0 || len(c.Levels) != min(c.Pieces, Cells) || strings.Trim(c.Levels, "0123456789") != "" {
		return Cover{}, fmt.Errorf("decode levels: %d cells for %d pieces", len(c.Levels), c.Pieces)
	}
	return c, nil
}
