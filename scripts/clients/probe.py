"""probe.py - what the real huggingface_hub sees in a cache. Run by check.py with HF_HOME and HF_HUB_OFFLINE=1 set.

probe.py JOB: JOB is JSON {"repos": [[repo_type, repo_id, revision, commit, {path: sha256}, unknown path]], "tensors": bool}.
Prints one JSON array of [what, ok, detail]."""
import hashlib
import json
import os
import sys
import warnings

import huggingface_hub as hf
import safetensors

results = []


def check(what, ok, detail=""):
    results.append([what, bool(ok), str(detail)])


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def attempt(what, call):
    """check that call() answers without an exception; returns its answer or None."""
    try:
        return call()
    except Exception as e:                                  # whatever the client raises is the finding
        check(what, False, f"{type(e).__name__}: {e}"[:300])
        return None


# C03: a full repository that p2pagent committed loads offline.
# By branch and by commit, as a snapshot and file by file, at the paths that the client itself would use.
def c03_snapshot(kind, repo, revision, commit, files):
    name = f"{kind} {repo}@{revision}"
    top = attempt(f"snapshot_download {name}", lambda: hf.snapshot_download(repo, repo_type=kind, revision=revision, local_files_only=True))
    if not top:
        return None
    have = {os.path.relpath(os.path.join(d, f), top) for d, _, names in os.walk(top) for f in names}
    check(f"snapshot_download {name}: the client's own path", top == os.path.join(os.environ["HF_HOME"], "hub", f"{kind}s--{repo.replace('/', '--')}", "snapshots", commit), top)
    check(f"snapshot_download {name}: all {len(files)} files and no other", have == set(files), sorted(have ^ set(files))[:5])
    bad = [p for p in have & set(files) if sha256(f"{top}/{p}") != files[p]]
    check(f"snapshot_download {name}: every byte", not bad, bad[:5])
    return top


# C03: every file of it by its name.
# hf_hub_download and try_to_load_from_cache return the same path, and the bytes there are right.
def c03_single(kind, repo, revision, commit, files, unknown):
    name = f"{kind} {repo}@{revision}"
    wrong = []
    for path, digest in files.items():
        got = attempt(f"hf_hub_download {name} {path}", lambda: hf.hf_hub_download(repo, path, repo_type=kind, revision=revision))
        if got and sha256(got) != digest:
            wrong.append(path)
        loaded = hf.try_to_load_from_cache(repo, path, repo_type=kind, revision=revision)
        if loaded != got:
            wrong.append((path, loaded))
    check(f"hf_hub_download and try_to_load_from_cache {name}: every file", not wrong, wrong[:3])
    check(f"try_to_load_from_cache {name}: no trace of a file that is not there", hf.try_to_load_from_cache(repo, unknown, repo_type=kind, revision=revision) is None)
    by_commit = attempt(f"snapshot_download {name} by commit", lambda: hf.snapshot_download(repo, repo_type=kind, revision=commit, local_files_only=True))
    check(f"snapshot_download {name} by commit", by_commit and os.path.basename(by_commit) == commit, by_commit)


def tensors(top):
    """Opens every tensor of every safetensors file: names, shapes, bytes."""
    count, total = 0, 0
    for folder, _, names in os.walk(top):
        for n in (n for n in names if n.endswith(".safetensors")):
            with safetensors.safe_open(os.path.join(folder, n), "np") as f:
                for key in f.keys():
                    count, total = count + 1, total + f.get_tensor(key).nbytes
    check("every tensor opens", count > 0 and total > 0, f"{count} tensors, {total} bytes")


# C04: the client's scan of the cache is clean.
# No warning, and every repository with its refs.
def c04_scan(expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        info = hf.scan_cache_dir()
    check("scan_cache_dir: no warning", not info.warnings and not caught, [str(w) for w in info.warnings][:3])
    found = {(r.repo_type, r.repo_id): {ref for v in r.revisions for ref in v.refs} for r in info.repos}
    want = {}
    for kind, repo, revision, *_ in expected:
        want.setdefault((kind, repo), set()).add(revision)
    check("scan_cache_dir: the repositories and their refs", found == want, found)


job = json.loads(sys.argv[1])
for kind, repo, revision, commit, files, unknown in job["repos"]:
    top = c03_snapshot(kind, repo, revision, commit, files)
    c03_single(kind, repo, revision, commit, files, unknown)
    if top and job["tensors"] and any(p.endswith(".safetensors") for p in files):
        attempt("every tensor opens", lambda: tensors(top))
c04_scan(job["repos"])
print(json.dumps(results))
