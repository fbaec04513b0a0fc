"""gateway_python.py - the calls of the real huggingface_hub (and transformers) on a Hub that is p2pagent's gateway.

gateway_python.py STATE JOB: STATE is cold, warm or offline; JOB is JSON [[repo_type, repo_id, revision, commit, {path: sha256}, unknown path]].
Run by gateway.py with HF_ENDPOINT and HF_HOME set. Prints one JSON array of [call, ok, detail]."""
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time

import huggingface_hub as hf
import huggingface_hub.file_download as downloads
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

STATE, REPOS = sys.argv[1], json.loads(sys.argv[2])
OFFLINE = STATE == "offline"
results = []


def check(call, ok, detail=""):
    results.append([call, bool(ok), str(detail)[:300]])


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sha256_file(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def step(call):
    """Runs a check; whatever the client raises is a finding."""
    def run(f):
        try:
            f()
        except Exception as e:
            check(call, False, f"{type(e).__name__}: {e}")
    return run


def same(call, top, files):
    have = {os.path.relpath(os.path.join(d, n), top) for d, _, names in os.walk(top) for n in names}
    wrong = [p for p in files if p not in have or sha256_file(f"{top}/{p}") != files[p]]
    check(call, not wrong and have == set(files), f"{top}: {wrong or sorted(have ^ set(files))}")


# X01: Xet hashes reach no client.
# With hf_xet installed the client downloads by plain GETs from the gateway, and writes no Xet hash into its cache.
def xet():
    check("hf_xet is installed", importlib.util.find_spec("hf_xet"), "")
    for top, _, names in os.walk(os.environ["HF_HOME"]):
        for n in names:
            if os.path.basename(top) == "trees":
                with open(f"{top}/{n}") as f:
                    check("no Xet hash in the cache", "xet" not in f.read(), f"{top}/{n}")


# G01: snapshot_download through the gateway.
# The unmodified client gets every file byte for byte: a model, a dataset, a branch, a tag, a pull request, a commit; again when all is there, and offline.
def snapshots():
    for kind, repo, revision, commit, files, _ in REPOS:
        for r in dict.fromkeys([revision, commit]):
            @step("snapshot_download")
            def _(r=r, kind=kind, repo=repo, files=files):
                same("snapshot_download", hf.snapshot_download(repo, repo_type=kind, revision=r, local_files_only=OFFLINE), files)


def stored():
    """snapshots(), with a look at the way that every file takes: by plain GET, or as Xet."""
    real_get, real_xet, got, names = downloads.http_get, downloads.xet_get, [], []

    def http_get(url, *a, **k):
        got.append(url)
        return real_get(url, *a, **k)

    def xet_get(*a, **k):
        names.append(k["xet_file_data"].file_hash)
        return real_xet(*a, **k)
    downloads.http_get, downloads.xet_get = http_get, xet_get
    snapshots()
    large = {}
    for kind, repo, revision, *_ in REPOS:
        large |= {e.path: e.xet_hash for e in hf.HfApi().list_repo_tree(repo, repo_type=kind, revision=revision, recursive=True) if getattr(e, "xet_hash", None)}
    check("large files as Xet", len(large) > 5 and set(names) == set(large.values()), f"{names} of {large}")
    check("no large file by GET", got and not [u for u in got if u.endswith(tuple(large))], got)


# G04: a file whose pieces come twelve seconds apart.
# The client, with its own ten seconds for headers and for each pause in a body, finishes: it is asked to come again before the first byte, and fed between pieces.
def slow():
    (_, repo, _, _, files, _), began = REPOS[0], time.monotonic()
    check("a slow file", constants.HF_HUB_DOWNLOAD_TIMEOUT == 10, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    step("a slow file")(lambda: same("a slow file", hf.snapshot_download(repo), files))
    check("a slow file", time.monotonic() - began > 20, f"it came in {time.monotonic() - began:.0f} s")


# G19: who may read a gated repository and a private one.
# A caller whose token the Hub accepts gets both; others get the Hub's own refusals, by the client's own names.
def closed():
    caller = os.environ["CALLER"]
    if caller == "right":
        return snapshots()
    refusals = {"none": {"acme/gated": GatedRepoError, "acme/private": RepositoryNotFoundError}, "wrong": {"acme/gated": HfHubHTTPError, "acme/private": HfHubHTTPError}}
    for _, repo, *_ in REPOS:
        for call, run in (("hf_hub_download", lambda: hf.hf_hub_download(repo, "config.json")), ("repo_info", lambda: hf.HfApi().repo_info(repo))):
            try:
                run()
                check(call, False, f"{repo} for {caller}")
            except Exception as e:
                check(call, isinstance(e, refusals[caller][repo]) and e.response.status_code in (401, 403), f"{repo} for {caller}: {type(e).__name__}: {e}")


def single():
    for kind, repo, revision, _, files, unknown in REPOS:
        @step("hf_hub_download")
        def _(kind=kind, repo=repo, revision=revision, files=files):
            wrong = [p for p, want in files.items() if sha256_file(hf.hf_hub_download(repo, p, repo_type=kind, revision=revision)) != want]
            check("hf_hub_download", not wrong, wrong)


# G07: optional files that are not there.
# Six probes, as transformers makes them, end in EntryNotFoundError six times, and those for repositories and revisions in their own errors.
def absent():
    api, (kind, repo, revision, *_ ) = hf.HfApi(), REPOS[0]
    for name in ("adapter_config.json", "generation_config.json", "added_tokens.json", "chat_template.jinja", "processor_config.json", "preprocessor_config.json"):
        try:
            hf.hf_hub_download(repo, name, repo_type=kind, revision=revision)
            check("absent files", False, name)
        except EntryNotFoundError as e:
            check("absent files", "Entry" in type(e).__name__, e)
        except Exception as e:
            check("absent files", False, f"{type(e).__name__}: {e}")
    for want, call in ((RevisionNotFoundError, lambda: api.model_info(repo, revision="no-such")), (RepositoryNotFoundError, lambda: api.model_info("acme/none"))):
        try:
            call()
            check("absent files", False, want.__name__)
        except want:
            check("absent files", True)


def api():
    api = hf.HfApi()
    for kind, repo, revision, commit, files, unknown in REPOS:
        step("repo_info")(lambda: check("repo_info", (i := api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True)).sha == commit
                                        and {s.rfilename for s in i.siblings} == set(files), i))
        step("list_repo_tree")(lambda: check("list_repo_tree", {e.path for e in api.list_repo_tree(repo, repo_type=kind, revision=revision, recursive=True, expand=True)
                                                              if isinstance(e, hf.hf_api.RepoFile)} == set(files)))
        some = list(files)[:3]
        step("get_paths_info")(lambda: check("get_paths_info", {e.path for e in api.get_paths_info(repo, [*some, unknown], repo_type=kind, revision=revision, expand=True)} == set(some)))
        step("file_exists")(lambda: check("file_exists", api.file_exists(repo, some[0], repo_type=kind, revision=revision)
                                          and not api.file_exists(repo, unknown, repo_type=kind, revision=revision)))

    @step("list_repo_refs")
    def _():
        r = api.list_repo_refs("acme/odd", include_pull_requests=True)
        check("list_repo_refs", "main" in [b.name for b in r.branches] and "refs/pr/1" in [p.ref for p in r.pull_requests], r)


# G15: HfFileSystem.
# ls, info, glob, and read and seek in the middle of a file, through ranges.
def filesystem():
    fs = hf.HfFileSystem(endpoint=os.environ["HF_ENDPOINT"])
    kind, repo, revision, _, files, _ = REPOS[1]
    top = f"{repo}@{revision}"
    with open(hf.hf_hub_download(repo, "a/b/big.bin"), "rb") as f:
        big = f.read()
    step("HfFileSystem.ls")(lambda: check("HfFileSystem.ls", {p.split("/", 2)[2] for p in fs.ls(top, detail=False)} == {f.split("/")[0] for f in files}, fs.ls(top, detail=False)))
    step("HfFileSystem.info")(lambda: check("HfFileSystem.info", fs.info(f"{top}/a/b/big.bin")["size"] == len(big) and fs.isdir(f"{top}/a/b")))
    step("HfFileSystem.glob")(lambda: check("HfFileSystem.glob", len(fs.glob(f"{top}/**/*.json")) == 2, fs.glob(f"{top}/**/*.json")))

    @step("HfFileSystem.open")
    def _():
        with fs.open(f"{top}/a/b/big.bin", "rb", block_size=1 << 16) as f:
            first = f.read(100)
            f.seek(3_000_000)
            check("HfFileSystem.open", first == big[:100] and f.read(1000) == big[3_000_000:3_001_000])


def command():
    for kind, repo, revision, commit, files, _ in REPOS[:1]:
        cmd = [os.path.join(os.path.dirname(sys.executable), "hf"), "download", repo, "--revision", revision]
        p = subprocess.run(cmd, capture_output=True, text=True, timeout=120)
        check("hf download", p.returncode == 0 and commit in p.stdout, p.stderr[-300:])


def loaded():
    import transformers
    transformers.logging.set_verbosity_error()
    repo = REPOS[0][1]

    @step("AutoConfig")
    def _():
        check("AutoConfig", transformers.AutoConfig.from_pretrained(repo).hidden_size == 384)

    @step("AutoTokenizer")
    def _():
        ids = transformers.AutoTokenizer.from_pretrained(repo)("one copy for all")["input_ids"]
        check("AutoTokenizer", ids[0] == 101 and ids[-1] == 102 and len(ids) == 6, ids)


if os.environ.get("ONLY"):                                   # a part of it, when several clients start together
    globals()[os.environ["ONLY"]]()
else:
    snapshots()
    single()
    loaded()
    if not OFFLINE:
        absent()
        api()
        filesystem()
        command()
        xet()
print(json.dumps(results))
