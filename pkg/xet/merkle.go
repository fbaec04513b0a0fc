package xet

import (
	"slices"
	"strconv"
)

// Node is a chunk, or what a tree makes of several: its hash and how many plain
// bytes it stands for.
type Node struct {
	Hash Hash
	Size uint64
}

// The fan-out of the tree: a group has two to nine children and ends at a child
// whose hash is divisible by four, so that equal runs of chunks make equal nodes.
const (
	leastGroup = 2
	mostGroup  = 9
	groupEnds  = 4
)

// Root returns the name of a xorb of these chunks. One chunk is its own root;
// none has the zero hash.
func Root(chunks []Node) Hash {
	if len(chunks) == 0 {
		return Hash{}
	}
	k, level := newKeyed(nodeKey), slices.Clone(chunks)
	var text []byte
	for len(level) > 1 {
		made := level[:0] // never ahead of what is read
		for rest := level; len(rest) > 0; {
			n := group(rest)
			var node Node
			node, text = parent(k, rest[:n], text[:0])
			rest = rest[n:]
			made = append(made, node)
		}
		level = made
	}
	return level[0].Hash
}

// group returns how many of the nodes make the next group.
func group(nodes []Node) int {
	end := min(mostGroup, len(nodes))
	for i := leastGroup; i < end; i++ {
		if nodes[i].Hash.mod(groupEnds) == 0 {
			return i + 1
		}
	}
	return end
}

// parent hashes one line of text for each child; buf is scratch.
func parent(k keyed, children []Node, buf []byte) (Node, []byte) {
	var size uint64
	for i := range children {
		buf = children[i].Hash.appendText(buf)
		buf = append(buf, " : "...)
		buf = strconv.AppendUint(buf, children[i].Size, 10)
		buf = append(buf, '\n')
		size += children[i].Size
	}
	return Node{k.sum(buf), size}, buf
}

// FileHash returns the name of a file of these chunks, in its order: the keyed
// hash of their root under a key of zeros. An empty file has the zero hash.
func FileHash(chunks []Node) Hash {
	if len(chunks) == 0 {
		return Hash{}
	}
	root := Root(chunks)
	return newKeyed([32]byte{}).sum(root[:])
}
