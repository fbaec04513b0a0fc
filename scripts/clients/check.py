"""check.py BIN WHEEL - p2pagent against the real huggingface_hub. Started by run, with the Python of .cache/venv.

One Hub (hubserver) and agents on loopback, everything in one temporary folder that goes when this ends."""
import atexit
import json
import os
import shutil
import signal
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


def download(home, hub, repos):
    """snapshot_download of every ref by the real client, online; returns what it said on stderr when it failed."""
    job = json.dumps([r[:3] for r in repos])
    p = subprocess.run([sys.executable, "-c", DOWNLOAD, job], env=client_env(home, hub.url, False), capture_output=True, text=True, timeout=180)
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
            section("the real client online on our cache")
            online(one, hub, repos)
            two.stop()
            one.stop()
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
