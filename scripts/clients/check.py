"""check.py BIN WHEEL - p2pagent against the real huggingface_hub. Started by run, with the Python of .cache/venv.

One Hub (hubserver) and agents on loopback, everything in one temporary folder that goes when this ends."""
import atexit
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import procs
import repos as repos_of
import tree

HERE = os.path.dirname(os.path.abspath(__file__))
BIN, WHEEL = sys.argv[1], sys.argv[2]
WORK = tempfile.mkdtemp(prefix="p2pagent-clients-")
SRC = f"{WORK}/src"
results = []


def check(what, ok, detail=""):
    results.append(bool(ok))
    if not ok:
        print(f"FAILED  {what}  [{detail}]", flush=True)


def section(title):
    print(f"== {title}  ({sum(results)} passed so far)", flush=True)


# ---------------------------------------------------------------- the real client

def client_env(home, endpoint, offline):
    return procs.clean_env(HF_HOME=home, HF_ENDPOINT=endpoint, HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1",
                           NO_PROXY="127.0.0.1", **({"HF_HUB_OFFLINE": "1"} if offline else {}))


def probe(title, home, hub, repos):
    """Runs probe.py on a cache and takes over its checks."""
    job = json.dumps({"repos": repos, "tensors": True})
    p = subprocess.run([sys.executable, f"{HERE}/probe.py", job], env=client_env(home, hub.url, True), capture_output=True, text=True, timeout=180)
    if p.returncode:
        check(f"{title}: the probe", False, p.stderr.strip()[-600:])
        return
    for what, ok, detail in json.loads(p.stdout):
        check(f"{title}: {what}", ok, detail)


DOWNLOAD = """import sys, json, huggingface_hub as hf
for kind, repo, revision, *_ in json.loads(sys.argv[1]): print(hf.snapshot_download(repo, repo_type=kind, revision=revision))"""


def download(home, hub, repos, **env):
    """snapshot_download of every ref by the real client, online; returns what it said on stderr when it failed."""
    job = json.dumps([r[:3] for r in repos])
    p = subprocess.run([sys.executable, "-c", DOWNLOAD, job], env=client_env(home, hub.url, False) | env, capture_output=True, text=True, timeout=180)
    return None if p.returncode == 0 else p.stderr.strip()[-600:]


# ---------------------------------------------------------------- the checks

def fetched(agents, hub, refs, repos):
    """Two agents fetch every ref; the real client, offline, uses what they left."""
    for ref in refs:
        jobs = [(a, a.fetch(ref)) for a in agents]
        for a, job in jobs:
            code, path, said = job()
            check(f"fetch {ref} on {a.name}", code == 0, f"exit {code}: {said}")
            want = [r for r in repos if refs_name(r) == ref][0]
            check(f"fetch {ref} on {a.name}: prints the snapshot path last", path.endswith("/snapshots/" + want[3]), path)
    stats = hub.stats()
    check("two agents, one copy", stats["body_bytes"] == (want := repos_of.unique(REPOS, SRC, repos)), f"{stats['body_bytes']} bytes for {want}")
    for a in agents:
        probe(f"cache of {a.name}, offline", a.home, hub, repos)


def refs_name(row):
    kind, repo, revision = row[:3]
    return f"{'datasets/' if kind == 'dataset' else ''}{repo}@{revision}"


def adopted(hub, key, refs, repos):
    """A cache that the real client wrote is taken over without an upstream byte, and still is the client's."""
    home = f"{WORK}/adopt"
    shutil.copytree(f"{WORK}/real", home, symlinks=True)
    before = tree.listing(f"{home}/hub")
    with procs.Agent(BIN, f"{WORK}/adopter", hub, key, home=home) as a:
        start = hub.stats()["body_bytes"]
        for ref in refs:
            code, _, said = a.fetch(ref)()
            check(f"adopt {ref}", code == 0, f"exit {code}: {said}")
        check("adoption costs no upstream byte", hub.stats()["body_bytes"] == start, f"{hub.stats()['body_bytes'] - start} bytes")
    probe("adopted cache, offline", home, hub, repos)
    after = tree.listing(f"{home}/hub")
    check("adoption leaves the client's files alone", not (changed := tree.differences(before, after)), changed[:5])


def online(agent, hub, repos):
    """The real client, online, on a cache that we wrote: it must find everything there."""
    start = hub.stats()["body_bytes"]
    trouble = download(agent.home, hub, repos)
    check("snapshot_download online on our cache", not trouble, trouble)
    check("it downloads nothing", hub.stats()["body_bytes"] == start, f"{hub.stats()['body_bytes'] - start} bytes")


def row(name, home, endpoint, want, offline=False, **more):
    """Runs one scenario of rows.py and takes over its checks; more goes into its job, or with HF_ into its environment."""
    p = start_row(name, home, endpoint, want, offline, **more)
    end_row(name, p)


def start_row(name, home, endpoint, want, offline=False, **more):
    kind, repo, revision, commit, files, _ = want
    env = {k: more.pop(k) for k in list(more) if k.startswith("HF_")}
    job = json.dumps({"kind": kind, "repo": repo, "revision": revision, "commit": commit, "files": files, "home": home} | more)
    return subprocess.Popen([sys.executable, f"{HERE}/rows.py", name, job], env=client_env(home, endpoint, offline) | env, text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_row(name, p):
    try:
        out, err = p.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
    if p.returncode or not out:
        check(name, False, f"exit {p.returncode}: {err.strip()[-600:]}")
        return
    for what, ok, detail in json.loads(out):
        check(f"{name}: {what}", ok, detail)


def loaders(agent, hub, repos):
    """How loaders use a cache that we wrote, with the Hub up, down and silent."""
    by_name = {refs_name(r): r for r in repos}
    odd, pipe, data = by_name["acme/odd@main"], by_name["acme/pipe@main"], by_name["datasets/acme/rows@main"]
    calls = hub.stats()["calls"]
    for want in (odd, data):
        row("o01_offline_after_fetch", agent.home, hub.url, want, offline=True)
        row("o02_local_files_only", agent.home, hub.url, want)
        row("o03_pinned_commit", agent.home, hub.url, want)
    row("o04_pipeline", agent.home, hub.url, pipe, offline=True)
    row("o05_full", agent.home, hub.url, pipe)
    check("none of them asked the Hub anything", hub.stats()["calls"] == calls, hub.stats()["calls"])
    for want in repos:
        row("c04_verify", agent.home, hub.url, want)
    row("o06_hub_refuses", agent.home, f"http://127.0.0.1:{procs.free_ports(1)[0]}", odd)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        row("o06_hub_is_silent", agent.home, f"http://127.0.0.1:{silent.getsockname()[1]}", odd, HF_HUB_ETAG_TIMEOUT="1")
    if os.getuid():
        print("not root: C05 and C13, which become another user, are left out", flush=True)
        return
    os.chmod(WORK, 0o755)
    for name in ("c05_listing_of_another_user", "c13_read_only_for_another_user"):
        for want in (odd, data):
            row(name, agent.home, hub.url, want, offline=True)


def subset(hub, key, join, repos):
    """Only what patterns match is fetched, and the client is content with it."""
    want = [r for r in repos if refs_name(r) == "acme/pipe@main"][0]
    with procs.Agent(BIN, f"{WORK}/subset", hub, key, join=join) as a:
        code, _, said = a.fetch("acme/pipe", "--include", "*.json", "--include", "vae/*")()
        check("fetch --include", code == 0, f"exit {code}: {said}")
        row("o05_subset", a.home, hub.url, want, left_out=["README.md", "unet/w.bin"])


# C09: a cache of regular files, as the real client makes it with HF_HUB_DISABLE_SYMLINKS.
# It is taken over without an upstream byte, its files stay as they are, and the client goes on using them.
def c09_copied_cache(hub, key, repos):
    want = [r for r in repos if refs_name(r) == "acme/odd@main"]
    home = f"{WORK}/copied"
    trouble = download(home, hub, want, HF_HUB_DISABLE_SYMLINKS="1")
    check("c09: the real client downloads without links", not trouble, trouble)
    before = tree.listing(f"{home}/hub")
    check("c09: there are no links", not [p for p, e in before.items() if e[0] == "link"] and before)
    with procs.Agent(BIN, f"{WORK}/copier", hub, key, home=home) as a:
        start = hub.stats()["body_bytes"]
        code, _, said = a.fetch("acme/odd")()
        check("c09: fetch", code == 0, f"exit {code}: {said}")
        check("c09: no upstream byte", hub.stats()["body_bytes"] == start, f"{hub.stats()['body_bytes'] - start} bytes")
    check("c09: every file stays as it is", not (changed := tree.differences(before, tree.listing(f"{home}/hub"))), changed[:5])
    probe("copied cache, offline", home, hub, want)


def waiting_client(hub, key, repos):
    """The client waits for the lock of a blob; the agent, which takes no such lock, brings the blob meanwhile."""
    want = [r for r in repos if refs_name(r) == "acme/odd@main"][0]
    with procs.Agent(BIN, f"{WORK}/waited", hub, key) as a:
        locks = f"{a.home}/hub/.locks/models--acme--odd"
        os.makedirs(locks)
        big = want[4]["a/b/big.bin"]
        only = want[:4] + [{"a/b/big.bin": big}, want[5]]
        with open(f"{locks}/{big}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = start_row("l02_client_waits", a.home, hub.url, only)
            before = hub.stats()["calls"].get("head", 0)
            procs.wait("the client has asked for the file", 30, lambda: hub.stats()["calls"].get("head", 0) > before or client.poll() is not None)
            code, _, said = a.fetch("acme/odd")()
            check("fetch while a client holds and another awaits the lock", code == 0 and client.poll() is None, f"exit {code}, client {client.poll()}: {said}")
            start = hub.stats()["body_bytes"]
        end_row("l02_client_waits", client)
        check("l02_client_waits: it only links", hub.stats()["body_bytes"] == start, f"{hub.stats()['body_bytes'] - start} bytes")
        blobs = os.listdir(f"{a.home}/hub/models--acme--odd/blobs")
        check("l02_client_waits: one blob for each file", len(blobs) == len(set(want[4].values())) and big in blobs, blobs)


def alike(agents, hub):
    """Trees by us and by the real client: names, kinds, modes, link targets, bytes of refs and trees."""
    real = tree.listing(f"{WORK}/real/hub")
    check("the real client's own tree is not empty", len(real) > 20, len(real))
    for a in agents:
        diff = tree.differences(real, tree.listing(f"{a.home}/hub"))
        check(f"tree of {a.name} is the real client's, but for the documented exceptions", not diff, "\n    ".join(["", *diff[:12]]))


def main():
    os.umask(0o022)
    section("the Hub, and the real client alone")
    with procs.Hub(BIN, WORK, {ref: f"{SRC}/{folder}" for ref, folder in REPOS.items()}) as hub:
        repos = repos_of.expected(REPOS, SRC, hub)
        trouble = download(f"{WORK}/real", hub, repos)
        check("the real client downloads from hubserver", not trouble, trouble)
        probe("cache of the real client, offline", f"{WORK}/real", hub, repos)
        if os.environ.get("CLIENTS_HUB_ONLY"):              # to try hubserver by itself
            return
        hub.reset()
        section("two agents fetch; the real client uses it offline")
        key = procs.keygen(BIN, f"{WORK}/key")
        with procs.Agent(BIN, f"{WORK}/one", hub, key) as one, procs.Agent(BIN, f"{WORK}/two", hub, key, join=one.gossip) as two:
            fetched([one, two], hub, list(REPOS), repos)
            section("trees alike")
            alike([one, two], hub)
            section("loaders on our cache; a subset")
            loaders(one, hub, repos)
            subset(hub, key, one.gossip, repos)
            section("the real client online on our cache")
            online(one, hub, repos)
            two.stop()
            one.stop()
        section("a cache without links")
        c09_copied_cache(hub, procs.keygen(BIN, f"{WORK}/key4"), repos)
        section("a client that waits for its lock")
        waiting_client(hub, procs.keygen(BIN, f"{WORK}/key3"), repos)
        section("a cache of the real client is adopted")
        adopted(hub, procs.keygen(BIN, f"{WORK}/key2"), list(REPOS), repos)


def clean():
    procs.stop_all()
    if os.environ.get("CLIENTS_KEEP"):
        print("kept:", WORK)
    else:
        shutil.rmtree(WORK, ignore_errors=True)


atexit.register(clean)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
REPOS = repos_of.make(SRC, WHEEL)
started = time.monotonic()
try:
    main()
except procs.Failed as e:
    check("the run", False, e)
print(f"{time.monotonic() - started:.0f} s with huggingface_hub {__import__('huggingface_hub').__version__}")
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
