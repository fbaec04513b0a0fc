package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// filesystem is what is known of a magic number of statfs(2).
type filesystem struct {
	name string
	do   string // "" for one that needs nothing
}

const (
	ownDisk = "point HF_HUB_CACHE and --state-dir at a disk of this node: members swap pieces faster than a file server, and each wants a copy of its own"
	volume  = "mount a volume for HF_HUB_CACHE and --state-dir: what lies here goes with the container"
	memory  = "point HF_HUB_CACHE and --state-dir at a disk: what lies here is memory, and gone after a restart"
)

// filesystems have their numbers from linux/magic.h and the makers of those that
// are not in the kernel. What is not here is taken for a local disk.
var filesystems = map[int64]filesystem{
	0x6969:     {"NFS", ownDisk},
	0x0BD00BD0: {"Lustre", ownDisk},
	0xFF534D42: {"CIFS", ownDisk},
	0xFE534D42: {"SMB", ownDisk},
	0x517B:     {"SMB", ownDisk},
	0x65735546: {"FUSE", ownDisk},
	0x00C36400: {"Ceph", ownDisk},
	0x47504653: {"GPFS", ownDisk},
	0x19830326: {"BeeGFS", ownDisk},
	0x01021997: {"9P", ownDisk},
	0x5346414F: {"AFS", ownDisk},
	0x7461636F: {"OCFS2", ownDisk},
	0x01161970: {"GFS2", ownDisk},
	0x794C7630: {"overlay", volume},
	0x01021994: {"tmpfs", memory},
	0x858458F6: {"ramfs", memory},
	0xEF53:     {"ext4", ""},
	0x58465342: {"XFS", ""},
	0x9123683E: {"Btrfs", ""},
	0x2FC12FC1: {"ZFS", ""},
}

const lookAtDisk = "look at the folder, the mount and the kernel's log"

// checkCache finds folders that can't be written and filesystems that do not fit.
func checkCache(_ context.Context, e *Env) Result {
	cache, err := e.Statfs(e.HubCache)
	if err != nil {
		return fail(lookAtDisk, "%s: %v", e.HubCache, err)
	}
	if r, found := checkRights(e, cache.Dir); found {
		return r
	}
	kind, known := filesystems[cache.Type]
	if !known {
		kind.name = fmt.Sprintf("filesystem %#x", cache.Type)
	}
	if kind.do != "" {
		return warn(kind.do, "%s is on %s", e.HubCache, kind.name)
	}
	return ok("%s is on %s", e.HubCache, kind.name)
}

// checkRights is for an agent that is to be started; one that runs may be another
// user's.
func checkRights(e *Env, cacheDir string) (Result, bool) {
	if e.agentIsHere() {
		return Result{}, false
	}
	state, err := e.Statfs(e.StateDir)
	if err != nil {
		return fail(lookAtDisk, "%s: %v", e.StateDir, err), true
	}
	if err := e.Write(state.Dir); err != nil {
		return fail("give this user the right to write --state-dir, or name another", "%s: %v", state.Dir, err), true
	}
	if err := e.Write(cacheDir); err != nil {
		return warn("give this user the right to write the cache, unless this node only serves it", "%s: %v", cacheDir, err), true
	}
	return Result{}, false
}

// agentIsHere tells whether an agent runs, be it one that does not talk to us.
func (e *Env) agentIsHere() bool { return e.Agent != nil || errors.Is(e.AgentErr, fs.ErrPermission) }

// checkLocks finds filesystems on which flock does nothing: two agents could
// write one cache.
func checkLocks(_ context.Context, e *Env) Result {
	const do = "make sure that no second agent and no --standalone command uses this cache"
	state, err := e.Statfs(e.StateDir)
	if err != nil {
		return skipped("%s: %v", e.StateDir, err)
	}
	works, err := e.Excludes(state.Dir)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return warn(do, "%s has no locks", state.Dir)
	case err != nil:
		return skipped("not tried: %v", err)
	case !works:
		return warn(do, "locks on %s keep nobody out", state.Dir)
	}
	return ok("a second agent would be kept out")
}

// checkMount: finished files are renamed from the state into the cache.
func checkMount(_ context.Context, e *Env) Result {
	same, err := e.SameMount(e.StateDir, e.HubCache)
	switch {
	case err != nil:
		return skipped("not tried: %v", err)
	case !same:
		return fail("set --state-dir to a folder on the cache's mount; a cache that is itself a mount point needs HF_HUB_CACHE one folder deeper",
			"%s and %s are on different filesystems or mounts", e.StateDir, e.HubCache)
	}
	return ok("state and cache are on one")
}

// What is left on a disk: below the first no model fits, below the second few.
const (
	noSpace    = 1 << 30
	littleRoom = 20 << 30
)

func checkSpace(_ context.Context, e *Env) Result {
	const do = "remove snapshots with `p2pagent rm`, or point HF_HUB_CACHE and --state-dir at a larger disk"
	fs, err := e.Statfs(e.HubCache)
	text := fmt.Sprintf("%.1f of %.1f GiB free", float64(fs.Free)/(1<<30), float64(fs.Size)/(1<<30))
	switch {
	case err != nil:
		return fail(lookAtDisk, "%s: %v", e.HubCache, err)
	case fs.Free < noSpace:
		return fail(do, "%s", text)
	case fs.Free < littleRoom:
		return warn(do, "%s", text)
	}
	return ok("%s", text)
}

// A snapshot takes two or three inodes a file.
const (
	noInodes  = 1000
	fewInodes = 50_000
)

func checkInodes(_ context.Context, e *Env) Result {
	const do = "remove small files from this filesystem, or make one with more inodes"
	fs, err := e.Statfs(e.HubCache)
	text := fmt.Sprintf("%d of %d free", fs.FreeInodes, fs.Inodes)
	switch {
	case err != nil:
		return fail(lookAtDisk, "%s: %v", e.HubCache, err)
	case fs.Inodes == 0:
		return skipped("this filesystem makes them as needed")
	case fs.FreeInodes < noInodes:
		return fail(do, "%s", text)
	case fs.FreeInodes < fewInodes:
		return warn(do, "%s", text)
	}
	return ok("%s", text)
}

// Open files of an agent: 256 streams, connections to the Hub, and two for each
// file that is on its way.
const (
	tooFewFiles = 512
	fewFiles    = 4096
)

func checkOpenFiles(_ context.Context, e *Env) Result {
	const do = "raise the limit to 65536: LimitNOFILE of systemd, or ulimit -Hn"
	n, err := e.OpenFiles()
	switch {
	case err != nil:
		return skipped("%v", err)
	case n < tooFewFiles:
		return fail(do, "at most %d", n)
	case n < fewFiles:
		return warn(do, "at most %d", n)
	}
	return ok("at most %d", n)
}

// checkTokenFile finds a file that this user can't read, or that everybody can.
func checkTokenFile(_ context.Context, e *Env) Result {
	mode, err := e.Stat(e.TokenFile)
	inUse := !e.set("HF_TOKEN") && !e.set("HUGGING_FACE_HUB_TOKEN")
	switch {
	case e.TokenFile == "" || err != nil && !(e.TokenNamed && inUse):
		return skipped("none")
	case err != nil:
		return fail("correct HF_TOKEN_PATH, or unset it", "%v", err)
	}
	if err := e.Read(e.TokenFile); err != nil && inUse {
		return fail("make it readable for the user that the agent runs as", "%v", err)
	}
	if mode&0o004 != 0 {
		return warn("chmod 600 it", "%s has mode %04o: every user of this machine can read the token", e.TokenFile, mode.Perm())
	}
	return ok("%s has mode %04o", e.TokenFile, mode.Perm())
}

func (e *Env) set(name string) bool {
	v, _ := e.Lookup(name)
	return v != ""
}
