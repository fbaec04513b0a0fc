"""gateway.py BIN WHEEL [MODULES] - unmodified clients whose HF_ENDPOINT is a p2pagent. Started by run, with the Python of .cache/venv.

One Hub (hubserver), a swarm of three agents, clients with caches of their own: cold, warm, offline. MODULES is a folder with @huggingface/hub;
without it, or without node or curl, those clients are left out and the matrix says so. Prints the matrix, then 'N passed, N failed'."""
import atexit
import collections
import importlib.metadata
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

HERE = os.path.dirname(os.path.abspath(__file__))
BIN, WHEEL, MODULES = sys.argv[1], sys.argv[2], os.path.abspath(sys.argv[3]) if sys.argv[3:] else ""
WORK = tempfile.mkdtemp(prefix="p2pagent-gateway-")
SRC = f"{WORK}/src"
matrix = collections.defaultdict(lambda: collections.defaultdict(list))   # (client, call) -> state -> [ok]


def check(client, call, state, ok, detail=""):
    matrix[client, call][state].append(bool(ok))
    if not ok:
        print(f"FAILED  {client}  {call}  {state}  [{detail}]", flush=True)


def show():
    print(f"{'client':26} {'call':25} " + " ".join(f"{s:>9}" for s in STATES))
    for (client, call), states in matrix.items():
        cells = [f"{sum(states[s])}/{len(states[s])}" if s in states else "-" for s in STATES]
        print(f"{client:26} {call:25} " + " ".join(f"{c:>9}" for c in cells))


STATES = ("cold", "warm", "offline")


# ---------------------------------------------------------------- the clients

def python_env(agent, home, state, **more):
    return procs.clean_env(**{"HF_HOME": home, "HF_ENDPOINT": agent.gateway, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HOME": home, "TOKENIZERS_PARALLELISM": "false"} | more
                           | ({"HF_HUB_OFFLINE": "1"} if state == "offline" else {}))


def start_python(agent, home, state, rows, **more):
    os.makedirs(home, exist_ok=True)
    return subprocess.Popen([sys.executable, f"{HERE}/gateway_python.py", state, json.dumps(rows)], env=python_env(agent, home, state, **more),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(client, state, p, limit=180):
    try:
        out, err = p.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
    if p.returncode:
        check(client, "the run", state, False, err.strip()[-600:])
        return
    for call, ok, detail in json.loads(out.strip().splitlines()[-1]):
        check(client, call, state, ok, detail)


# G02: the real @huggingface/hub from npm.
# modelInfo, listFiles, downloadFile, fileExists and snapshotDownload succeed, an empty file in the repository included.
def node(agent, state, rows):
    p = subprocess.Popen(["node", f"{HERE}/gateway_node.mjs", agent.gateway, f"{WORK}/js-{agent.name}", json.dumps(rows)],
                         env=procs.clean_env(MODULES=MODULES), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finish("@huggingface/hub", state, p)


# G13: every form of Range, by curl.
# Exact bytes and status for a single range, several ranges and one behind the end.
def curl(agent, state, rows):
    with open(f"{SRC}/odd/a/b/big.bin", "rb") as f:
        big = f.read()
    url, size = f"{agent.gateway}/acme/odd/resolve/main/a/b/big.bin", len(big)
    for spec, status, want in (("", "200", big), ("0-0", "206", big[:1]), ("10-19", "206", big[10:20]), (f"{size - 5}-", "206", big[-5:]), ("-7", "206", big[-7:]),
                               (f"{size}-", "416", None), ("0-1,5-6", "200", big), ("1048576-5000000", "206", big[1048576:5000001])):
        p = subprocess.run(["curl", "-sS", "--max-time", "60", "-o", f"{WORK}/curl.out", "-w", "%{http_code}", *(["-r", spec] if spec else []), url], env=procs.clean_env(NO_PROXY="*"), capture_output=True, text=True)
        with open(f"{WORK}/curl.out", "rb") as f:
            got = f.read()
        check("curl", f"Range {spec or 'none'}", state, p.stdout == status and want in (None, got), f"{p.stdout} {len(got)} bytes {p.stderr}")


# ---------------------------------------------------------------- the checks

# G01: a cold snapshot_download on three nodes at once.
# Each node's client asks its own agent; the Hub sends one copy of every file, and one repository information and listing of each commit.
def together(agents, hub, rows, client="huggingface_hub x3", call="snapshots"):
    hub.reset()
    running = [start_python(a, f"{WORK}/py-{a.name}", "cold", rows, ONLY=call, NO_PROXY="127.0.0.1") for a in agents]
    for a, p in zip(agents, running):
        finish(client, "cold", p)
    stats, small = hub.stats(), repos_of.unique(REPOS, SRC, rows, below=1 << 20)
    plain, stored = stats["body_bytes"] - stats["stored_bytes"], stats["stored_bytes"]
    check("the Hub", "one copy for three", "cold", plain == small and 0 < stored <= 1.01 * stats["store_bytes"],
          f"{plain} bytes of small files for {small}, {stored} of the store for {stats['store_bytes']}")
    check("the Hub", "one listing each", "cold", stats["calls"].get("tree", 0) == len(rows) and stats["calls"].get("info", 0) == len(rows), stats["calls"])


def committed(agent, rows):
    """What clients asked for is in the agent's own cache, whole snapshots with their refs, and right."""
    for kind, repo, revision, commit, files, _ in rows:
        ref = f"{'datasets/' if kind == 'dataset' else ''}{repo}@{revision}"
        p = subprocess.run([agent.binary, "show", ref, "--socket", agent.socket, "--format", "json"], env=agent.env, capture_output=True, text=True, timeout=30)
        got = json.loads(p.stdout) if p.returncode == 0 else {}
        check("the agent's cache", "show: complete", "warm", got.get("complete") and got["commit"] == commit, p.stderr or got)
        p = subprocess.run([agent.binary, "verify", ref, "--socket", agent.socket], env=agent.env, capture_output=True, text=True, timeout=60)
        check("the agent's cache", "verify", "warm", p.returncode == 0, p.stderr)


# X01: a Hub with a store, and a client with hf_xet.
# Straight at the Hub the client asks for a token of the store and reads from it. Through the gateway, when the agents have all, nobody does: neither listings nor headers name a Xet hash.
def xet_hidden(agent, hub, rows):
    for client, endpoint, state in (("straight at the Hub", hub.url, "cold"), ("huggingface_hub", agent.gateway, "warm")):
        hub.reset()
        finish(client, state, start_python(agent, f"{WORK}/py-store-{state}", "cold", rows[1:2], ONLY="snapshots", NO_PROXY="127.0.0.1", HF_ENDPOINT=endpoint))
        calls = hub.stats()["calls"]
        asked = [r for r in ("token", "cas", "xorb") if calls.get(r)]
        check(client, "asks the store" if endpoint == hub.url else "does not ask the store", state, bool(asked) == (endpoint == hub.url), calls)


# X02: Xet headers of the Hub.
# With the Hub sending X-Xet-Hash and Link rel=xet-auth on every answer, the client with hf_xet still downloads from the gateway.
def xet_headers(agent, hub, rows):
    fault = {"do": "headers", "header": {"X-Xet-Hash": "ef" * 32, "X-Xet-Refresh-Route": "/api/models/acme/odd/xet-read-token/main", "Link": '<http://127.0.0.1:9/>; rel="xet-auth"'}}
    hub.post("/-/faults", fault)
    finish("with Xet headers", "cold", start_python(agent, f"{WORK}/py-xet", "cold", rows[1:2], ONLY="snapshots", NO_PROXY="127.0.0.1"))
    hub.reset()


# X08: hf_xet reads from the swarm.
# With --gateway-xet=all, clients on three nodes at once take every file that the Hub has in its store as Xet, none of them by a plain GET, and the Hub sends one copy.
def as_xet(hub, key, rows):
    first = procs.Agent(BIN, f"{WORK}/xet-one", hub, key, gateway=True, P2PAGENT_GATEWAY_XET="all")
    agents = [first] + [procs.Agent(BIN, f"{WORK}/{name}", hub, key, join=first.gossip, gateway=True, P2PAGENT_GATEWAY_XET="all") for name in ("xet-two", "xet-three")]
    procs.wait("three members see each other", 30, lambda: all(a.members() == 2 for a in agents))
    together(agents, hub, rows, "hf_xet x3", "stored")
    finish("hf_xet", "warm", start_python(first, f"{WORK}/py-xet-warm", "warm", rows, ONLY="stored", NO_PROXY="127.0.0.1"))
    if MODULES:
        node(first, "warm", rows)                           # which keeps to plain HTTP
    for a in agents:
        a.stop()


# G26: proxy variables of the client.
# With a proxy that answers nothing, NO_PROXY as in the documented environment keeps the client with the gateway.
def proxied(agent, rows):
    p = start_python(agent, f"{WORK}/py-proxy", "cold", rows[3:4], ONLY="snapshots", HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="127.0.0.1,localhost")
    finish("with a proxy", "cold", p)


# G24: the Hub is gone.
# A new client gets everything from the agents, which have it.
def hub_gone(agent, hub, rows):
    hub.stop()
    finish("without the Hub", "cold", start_python(agent, f"{WORK}/py-gone", "cold", rows, ONLY="snapshots", NO_PROXY="127.0.0.1"))


def slow_start():
    """A Hub of 350 kB/s, an agent and its client, which run beside all the rest."""
    hub = procs.Hub(BIN, f"{WORK}/slow", {"acme/slow@main": f"{SRC}/slow"})
    hub.ask("/rate?bytes=350000", "POST")
    agent = procs.Agent(BIN, f"{WORK}/patient", hub, procs.keygen(BIN, f"{WORK}/key-slow"), gateway=True)
    return start_python(agent, f"{WORK}/py-slow", "cold", repos_of.expected({"acme/slow@main": "slow"}, SRC, hub), ONLY="slow", NO_PROXY="127.0.0.1")


def closed():
    """A gated and a private repository, on a node without a token and on one that has it, for callers of all kinds."""
    token, repos = "hf_ofthecaller", {"acme/gated@main": "closed", "acme/private@main": "closed"}
    flags = ["-token", token, "-gated", "acme/gated", "-private", "acme/private"]
    with procs.Hub(BIN, f"{WORK}/closed", {ref: f"{SRC}/{folder}" for ref, folder in repos.items()}, flags=flags, token=token) as hub:
        rows, key = repos_of.expected(repos, SRC, hub), procs.keygen(BIN, f"{WORK}/key-closed")
        without = procs.Agent(BIN, f"{WORK}/without", hub, key, gateway=True)
        owner = procs.Agent(BIN, f"{WORK}/owner", hub, key, join=without.gossip, gateway=True, HF_TOKEN=token)
        hub.reset()
        for agent, node in ((without, "node without token"), (owner, "node with token")):
            callers = {"none": {}, "wrong": {"HF_TOKEN": "hf_another"}, "right": {"HF_TOKEN": token}}
            running = {c: start_python(agent, f"{WORK}/py-{agent.name}-{c}", "cold", rows, ONLY="closed", CALLER=c, NO_PROXY="127.0.0.1", **env) for c, env in callers.items()}
            for caller, p in running.items():
                finish(f"{node}, {caller}", "cold", p)
        stats, want = hub.stats(), repos_of.unique(repos, SRC, rows)
        check("the Hub", "one copy of closed files", "cold", stats["body_bytes"] == want, f"{stats['body_bytes']} bytes for {want}")
        for a in (owner, without):
            a.stop()


def shared_cache(agent, rows):
    """A client whose cache is the agent's own."""
    for state in STATES:
        finish("in the agent's cache", state, start_python(agent, f"{WORK}/py-shared", state, rows[1:3], ONLY="snapshots", NO_PROXY="127.0.0.1", HF_HUB_CACHE=f"{agent.home}/hub"))


def main():
    os.umask(0o022)
    slow = slow_start()
    with procs.Hub(BIN, WORK, {ref: f"{SRC}/{folder}" for ref, folder in REPOS.items()}, flags=["-xet"]) as hub:
        rows = repos_of.expected(REPOS, SRC, hub)
        key = procs.keygen(BIN, f"{WORK}/key")
        agents = [procs.Agent(BIN, f"{WORK}/one", hub, key, gateway=True)]
        for name in ("two", "three"):
            agents.append(procs.Agent(BIN, f"{WORK}/{name}", hub, key, join=agents[0].gossip, gateway=True))
        procs.wait("three members see each other", 30, lambda: all(a.members() == 2 for a in agents))
        together(agents, hub, rows)
        committed(agents[1], rows)
        for state in STATES:
            finish("huggingface_hub", state, start_python(agents[0], f"{WORK}/py-all", state, rows, NO_PROXY="127.0.0.1"))
        if MODULES:
            for state in STATES[:2]:
                node(agents[1], state, rows)
        if shutil.which("curl"):
            curl(agents[2], "warm", rows)
        xet_hidden(agents[2], hub, rows)
        xet_headers(agents[2], hub, rows)
        proxied(agents[2], rows)
        shared_cache(agents[2], rows)
        as_xet(hub, key, rows)
        hub_gone(agents[1], hub, rows)
        for a in agents:
            a.stop()
    closed()
    finish("huggingface_hub", "cold", slow)


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
    check("the run", "", "cold", False, e)
show()
if not MODULES:
    print("left out: @huggingface/hub (node or npm is missing)")
if not shutil.which("curl"):
    print("left out: curl (it is missing)")
outcome = [ok for states in matrix.values() for oks in states.values() for ok in oks]
print(f"{time.monotonic() - started:.0f} s with huggingface_hub {__import__('huggingface_hub').__version__}, transformers {importlib.metadata.version('transformers')}")
print(f"{sum(outcome)} passed, {len(outcome) - sum(outcome)} failed")
sys.exit(0 if all(outcome) else 1)
