"""rows.py NAME JOB - one scenario with the real huggingface_hub on a cache that p2pagent wrote. Run by check.py.

JOB is JSON {"repo", "kind", "revision", "commit", "files": {path: sha256}, "home", ...}; HF_HOME and HF_ENDPOINT are set for it.
Prints one JSON array of [what, ok, detail]. Functions are named after their scenario."""
import contextlib
import ctypes
import hashlib
import json
import os
import sys

import huggingface_hub as hf
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

results, sockets = [], []
sys.addaudithook(lambda event, args: sockets.append((event, str(args)[:80])) if event.startswith("socket.") else None)


def check(what, ok, detail=""):
    results.append([what, bool(ok), str(detail)])


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def folder(j):
    kind, name = j["kind"] + "s", j["repo"].replace("/", "--")
    return f"{j['home']}/hub/{kind}--{name}"


def files_by_name(j, **more):
    """hf_hub_download of every file: the paths that came back, those with wrong bytes."""
    got = {p: hf.hf_hub_download(j["repo"], p, repo_type=j["kind"], **more) for p in j["files"]}
    return got, [p for p in got if sha256(got[p]) != j["files"][p]]


def no_sockets(what):
    check(f"{what}: no socket", not sockets, sockets[:3])
    sockets.clear()


# O01: HF_HUB_OFFLINE=1 after a fetch.
# What a loader does, file by file and as a snapshot, optional files that are not there included: every byte is right and
# no socket is made.
def o01_offline_after_fetch(j):
    got, wrong = files_by_name(j, revision=j["revision"])
    check("every file by name", not wrong, wrong[:3])
    cached = {p: hf.try_to_load_from_cache(j["repo"], p, repo_type=j["kind"], revision=j["revision"]) for p in j["files"]}
    check("try_to_load_from_cache says the same", cached == got, cached)
    for optional in ("adapter_config.json", "generation_config.json", "chat_template.jinja"):
        check(f"{optional} is not there", hf.try_to_load_from_cache(j["repo"], optional, repo_type=j["kind"]) is None)
        with contextlib.suppress(LocalEntryNotFoundError):
            check(f"{optional} is refused", False, hf.hf_hub_download(j["repo"], optional, repo_type=j["kind"]))
    check("the snapshot", hf.snapshot_download(j["repo"], repo_type=j["kind"]).endswith(j["commit"]))
    no_sockets("offline")


# O02: local_files_only for each call, while the Hub is up.
# The same without the switch: no request, no socket.
def o02_local_files_only(j):
    _, wrong = files_by_name(j, revision=j["revision"], local_files_only=True)
    check("every file by name", not wrong, wrong[:3])
    hf.snapshot_download(j["repo"], repo_type=j["kind"], revision=j["revision"], local_files_only=True)
    no_sockets("local_files_only")


# O03: a pinned commit, without any switch, while the Hub is up.
# trees/ is ours, so the client knows that it has everything and asks nobody.
def o03_pinned_commit(j):
    top = hf.snapshot_download(j["repo"], repo_type=j["kind"], revision=j["commit"])
    check("the snapshot", top == f"{folder(j)}/snapshots/{j['commit']}", top)
    _, wrong = files_by_name(j, revision=j["commit"])
    check("every file by name", not wrong, wrong[:3])
    no_sockets("pinned")


# O04: a pipeline, as diffusers loads it offline.
# It reads model_index.json, asks for the cached listing of the commit, which needs trees/, and takes the parts it names by
# patterns.
def o04_pipeline(j):
    index = hf.hf_hub_download(j["repo"], "model_index.json", local_files_only=True)
    listed = {f.path for f in hf.get_cached_repo_tree(j["repo"], revision=j["revision"])}
    check("the listing is there", listed == set(j["files"]), sorted(listed))
    parts = [p for p in json.load(open(index)) if not p.startswith("_")]
    top = hf.snapshot_download(j["repo"], local_files_only=True, allow_patterns=["model_index.json", *(f"{p}/*" for p in parts)])
    missing = [p for p in j["files"] if p.split("/")[0] in parts and not os.path.exists(f"{top}/{p}")]
    check("every part is there", parts and not missing, missing)
    no_sockets("pipeline")


# O05: a subset, as vLLM loads it offline.
# Only what the patterns matched was fetched. No trees/ was written, so the client returns the folder, asked without
# patterns, and does not miss the rest.
def o05_subset(j):
    top = hf.snapshot_download(j["repo"], local_files_only=True)
    have = {os.path.relpath(os.path.join(d, f), top) for d, _, names in os.walk(top) for f in names}
    check("the subset and no more", have == set(j["files"]) - set(j["left_out"]) and j["left_out"], have)
    with contextlib.suppress(CachedRepoTreeNotFoundError):
        check("there is no trees/", False, hf.get_cached_repo_tree(j["repo"]))
    no_sockets("subset")


# O05: the full repository, as vLLM loads it offline.
# With everything fetched trees/ is there, and the folder is returned all the same.
def o05_full(j):
    top = hf.snapshot_download(j["repo"], local_files_only=True)
    missing = [p for p in j["files"] if not os.path.exists(f"{top}/{p}")]
    check("all is there", not missing and hf.get_cached_repo_tree(j["repo"]), missing)


# O06: the Hub refuses connections, and nobody switched the client to offline.
# Cached files and the snapshot of main come back; every file that is NOT cached costs the client its retries, which is why
# applications should get HF_HUB_OFFLINE=1.
def o06_hub_refuses(j):
    check("the snapshot", hf.snapshot_download(j["repo"], repo_type=j["kind"]).endswith(j["commit"]))
    _, wrong = files_by_name(j)
    check("every file by name", not wrong, wrong[:3])
    check("it did try", sockets)


# O06: the Hub is a black hole.
# Connections open and nothing is ever said: after its timeout for each file (HF_HUB_ETAG_TIMEOUT) the client takes the
# cached one.
def o06_hub_is_silent(j):
    path = next(iter(j["files"]))
    check("a cached file", sha256(hf.hf_hub_download(j["repo"], path, repo_type=j["kind"])) == j["files"][path])
    check("it did try", sockets)


# C04: the client verifies what was fetched against the Hub.
# hf cache verify: every checksum is right, no file is missing, none is too many.
def c04_verify(j):
    v = hf.HfApi().verify_repo_checksums(j["repo"], repo_type=j["kind"], revision=j["revision"])
    check("no mismatch, nothing missing, nothing more", not (v.mismatches or v.missing_paths or v.extra_paths), v)
    check("every file was checked", v.checked_count == len(j["files"]), v.checked_count)


# L02: the client waits for its lock while the agent commits.
# Once it has the lock it finds the agent's blob and only links: what check.py then asks of the Hub is no byte.
def l02_client_waits(j):
    got, wrong = files_by_name(j, revision=j["revision"])
    check("every file by name", not wrong, wrong[:3])
    strays = [p for p in got.values() if not p.startswith(f"{folder(j)}/snapshots/{j['commit']}/")]
    check("in the snapshot", not strays, strays[:3])


# C05: trees/ is readable to every user.
# Another user than the agent's gets the listing of the commit.
def c05_listing_of_another_user(j):
    other_user(j)
    check("the listing", {f.path for f in hf.get_cached_repo_tree(j["repo"], repo_type=j["kind"])} == set(j["files"]))


# C13: the cache of a root agent, mounted read-only, used by an application of another user.
# Everything loads offline, byte for byte; nothing there is written, or could be.
def c13_read_only_for_another_user(j):
    other_user(j)
    got, wrong = files_by_name(j)
    check("every file by name", not wrong, wrong[:3])
    check("the snapshot", hf.snapshot_download(j["repo"], repo_type=j["kind"]).endswith(j["commit"]))
    try:
        open(f"{j['home']}/hub/x", "w")
        check("it is read-only", False)
    except OSError as e:
        check("it is read-only", True, e)
    no_sockets("read-only")


def other_user(j):
    """Mounts the cache read-only in a namespace of our own and becomes nobody. What is imported late is imported now: the
    interpreter's folder may be closed to others."""
    hf.snapshot_download(j["repo"], repo_type=j["kind"], local_files_only=True)
    files_by_name(j, local_files_only=True)
    hf.get_cached_repo_tree(j["repo"], repo_type=j["kind"])
    sockets.clear()
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE, MS_REMOUNT, MS_RDONLY = 0x20000, 0x1000, 0x4000, 1 << 18, 0x20, 1

    def mount(source, target, flags):
        if libc.mount(source, target, None, flags, None):
            raise OSError(ctypes.get_errno(), "mount")
    hub = f"{j['home']}/hub".encode()
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount(b"none", b"/", MS_REC | MS_PRIVATE)
    mount(hub, hub, MS_BIND)
    mount(b"none", hub, MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def main():
    name, j = sys.argv[1], json.loads(sys.argv[2])
    try:
        globals()[name](j)
    except Exception as e:                                  # whatever the client raises is the finding
        check(name, False, f"{type(e).__name__}: {e}"[:400])
    print(json.dumps(results))


main()
