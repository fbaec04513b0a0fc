"""What scripts/k8s/run shows: check.py ROOT WORK STATE [shell], as the first process of namespaces of its own."""
import http.client
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cluster
from cluster import get, kubectl, sh, until

root, work, state = map(pathlib.Path, sys.argv[1:4])
chart, kubernetes = root / "deploy/helm/p2pagent", root / "deploy/kubernetes"
NS = "p2pagent"
NODES = 3
MIB = 1 << 20
UNFINISHED = 32 * MIB  # what an agent holds of pieces that are not whole: pieceMemory in cmd/p2pagent/member.go
rows = {True: 0, False: 0}
began = time.monotonic()


def row(what, target, measured, ok):
    rows[bool(ok)] += 1
    print(f"| {what} | {target} | {measured} | {'ok' if ok else 'MISSED'} |", flush=True)


# ---------------------------------------------------------------- the Hub, on the control plane's address

MODELS = [f"org/name={192 * MIB}:3:5", f"org/labelled={24 * MIB}:1:3", f"org/upgraded={256 * MIB}:4:4", f"org/lost={256 * MIB}:4:4"]


class Hub:
    def __init__(self, port=8080, models=MODELS, *more):
        self.control, self.address = state / f"hub{port}", f"{cluster.HOST}:{port}"
        self.process = cluster.daemon(state / f"log/hub{port}", "hubserver", "-listen", self.address, "-cdn", f"{cluster.HOST}:{port + 1}", "-control", f"unix:{self.control}",
                                      *[x for m in models for x in ("-generate", m)], *more)
        until("the Hub", lambda: self.stats())

    def call(self, method, path):
        c = http.client.HTTPConnection("hub")
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(str(self.control))
        c.request(method, path)
        return json.loads(c.getresponse().read())

    def stats(self):
        return self.call("GET", "/stats")

    def body(self):
        return self.stats()["body_bytes"]

    def body_since(self, moment):
        """Bytes of requests that began since. What went into the socket of a client that is gone counts late, when its connection ends."""
        return sum(r["sent"] for r in self.call("GET", "/requests") if r["began"] >= moment)

    def rate(self, bytes_a_second):
        self.call("POST", f"/rate?bytes={bytes_a_second}")


# ---------------------------------------------------------------- agents

def pods():
    """The agents' pods by node."""
    return {p["spec"]["nodeName"]: p for p in get("pods", "-n", NS, "-l", "app.kubernetes.io/component=agent") if not p["metadata"].get("deletionTimestamp")}


def is_ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def settled(count=NODES):
    """Whether so many agents are ready and see all others."""
    return len(pods()) >= count and sum(is_ready(p) for p in pods().values()) == count


def agent(node, *args):
    return kubectl("-n", NS, "exec", pods()[node]["metadata"]["name"], "-c", "agent", "--", "p2pagent", *args)


def everywhere(*args, nodes=None):
    """Runs p2pagent on all nodes at once."""
    names = {n: p["metadata"]["name"] for n, p in pods().items() if not nodes or n in nodes}
    running = {n: subprocess.Popen(["kubectl", "-n", NS, "exec", name, "-c", "agent", "--", "p2pagent", *args], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE) for n, name in names.items()}
    out = {}
    for node, p in running.items():
        stdout, stderr = p.communicate(timeout=240)
        if p.returncode:
            raise SystemExit(f"k8s: p2pagent {args[0]} on {node}: {stderr}")
        out[node] = stdout
    return out


def lines(text):
    return [json.loads(x) for x in text.splitlines() if x.startswith("{")]


def fetched(ref):
    """What fetch says it took from where, by node."""
    return {n: lines(out)[-1] for n, out in everywhere("fetch", ref, "--format", "json").items()}


def moved_by(result):
    """Bytes that a fetch brought, from wherever."""
    return result["upstream"] + sum(result.get("peers", {}).values())


def complete(ref, nodes=None):
    """Whether the nodes have the whole snapshot."""
    def one(node):
        return json.loads(agent(node, "show", ref, "--format", "json"))["complete"]
    return all(one(n) for n in (nodes or pods()))


def helm(*args):
    return sh("helm", *args, "-n", NS)


VALUES = []  # what the release is made with, as it grows


def upgrade(*more):
    VALUES.extend(more)
    return helm("upgrade", "p2pagent", chart, "--wait", "--timeout=3m", *VALUES)


WISHES = []


def wish(ref):
    """Has every agent hold a model from now on, by the configuration."""
    WISHES.append({"ref": ref})
    upgrade("--set-json", f"config.models={json.dumps(WISHES)}")


def finished(name, ns="default"):
    """What a pod that ran to its end wrote."""
    def ended():
        phase = get("pod", name, "-n", ns)["status"]["phase"]
        if phase == "Failed":
            raise SystemExit(f"k8s: pod {name} failed: {kubectl('-n', ns, 'logs', name, '--all-containers')}")
        return phase == "Succeeded"
    until(f"the end of pod {name}", ended)
    return kubectl("-n", ns, "logs", name)


def snapshot_in(log):
    """The path that a consumer printed, among a client's progress."""
    return next((x for x in log.splitlines() if x.startswith("/") and "/snapshots/" in x), "")


def refused(*command, **more):
    """Why the API server refuses; empty when it does not."""
    p = subprocess.run([str(c) for c in command], text=True, capture_output=True, **more)
    return p.stderr.strip() if p.returncode else ""


def example(name):
    kubectl("apply", "-f", kubernetes / "examples" / name)


# ---------------------------------------------------------------- the story, in order

def install(hub):
    kubectl("apply", "-f", kubernetes / "namespace.yaml")
    VALUES.extend(["--set", f"config.hub-endpoint=http://{hub.address}"])
    start = time.monotonic()
    helm("install", "p2pagent", chart, "--wait", "--timeout=3m", *VALUES)
    until("agents that are ready", settled) # helm waits for as many as an update would leave
    took = time.monotonic() - start
    row("from helm install to agents that are ready on all nodes", "≤ 60 s", f"{took:.1f} s", took <= 60)
    peers = until("members that see each other", lambda: (p := {n: len(json.loads(agent(n, "peers", "--format", "json"))["peers"]) for n in pods()})
                  and set(p.values()) == {NODES - 1} and p)
    row("each member sees the others, joined by the headless Service", f"{NODES - 1} of {NODES - 1}", ", ".join(map(str, peers.values())), True)


def confinement(hub):
    seen = []
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (p / "cmdline").read_bytes().split(b"\0")[:2] == [b"/usr/bin/p2pagent", b"agent"]:
                seen.append(p)
        except OSError:
            continue
    status = [dict(line.split(":\t", 1) for line in (p / "status").read_text().splitlines() if ":\t" in line) for p in seen]
    bad = [s for s in status if s["Uid"].split() != ["65532"] * 4 or int(s["CapBnd"], 16) or int(s["CapEff"], 16) or s["NoNewPrivs"] != "1" or s["Seccomp"] != "2"]
    row("the agent's process: user, capabilities, no_new_privs, seccomp", "65532, none, set, filtered", f"{len(status) - len(bad)} of {NODES}", len(status) == NODES and not bad)
    writable = [p for p in seen if not any(f[4] == "/" and f[5].startswith("ro") for f in map(str.split, (p / "mountinfo").read_text().splitlines()))]
    tokens = [p for p in seen if "serviceaccount" in (p / "mountinfo").read_text()]
    row("its root file system; a token for the API in it", "read-only; none", f"{NODES - len(writable)} of {NODES}; {len(tokens)}", not writable and not tokens)
    helm("test", "p2pagent", "--timeout=2m")
    row("helm test: the doctor, beside an agent", "passes", "passes", True)


def size_of(ref):
    return sum(f["size"] for f in json.loads(agent("gpu-1", "show", ref, "--format", "json"))["contents"])


def one_copy(hub):
    before = hub.stats()
    start = time.monotonic()
    everywhere("fetch", "org/name", "--format", "json")
    took = time.monotonic() - start
    after, size = hub.stats(), size_of("org/name")
    copies = (after["body_bytes"] - before["body_bytes"]) / size
    row(f"fetch on all {NODES} at once, {size // MIB} MiB: Hub body bytes ÷ model bytes", "≤ 1.01", f"{copies:.4f} ({took:.1f} s)", 1 <= copies <= 1.01)
    calls = {k: n - before["calls"].get(k, 0) for k, n in after["calls"].items() if k in ("info", "tree")}
    row("Hub API calls of that", "1 info, 1 tree", ", ".join(f"{n} {k}" for k, n in calls.items()), calls == {"info": 1, "tree": 1})


HASH = """
import hashlib, pathlib, huggingface_hub as h
folder = pathlib.Path(h.snapshot_download('org/name', local_files_only=True))
files = [p for p in folder.rglob('*') if p.is_file()]
large = [p for p in files if len(p.resolve().name) == 64]
assert all(p.is_symlink() for p in files) and large
for p in large:
    assert hashlib.file_digest(p.open('rb'), 'sha256').hexdigest() == p.resolve().name, p
print(len(files))
"""


def restricted(hub):
    before = hub.body()
    pod = (kubernetes / "examples/init-container.yaml").read_text()
    example("restricted-namespace.yaml")
    why = refused("kubectl", "apply", "-n", "restricted", "-f", "-", input=pod)
    row("Pod Security restricted: a pod with hostPath", "refused", "refused" if "hostPath" in why else why or "admitted", "hostPath" in why)
    kubectl("-n", "restricted", "rollout", "status", "deployment/server", "--timeout=2m")
    servers = get("pods", "-n", "restricted", "-l", "app=server")
    nodes = {p["spec"]["nodeName"] for p in servers}
    counts = {int(kubectl("-n", "restricted", "exec", p["metadata"]["name"], "-c", "app", "--", "python3", "-c", HASH)) for p in servers}
    row("restricted-namespace.yaml: a pod on each node reads the model offline (huggingface_hub), every large file has the digest of its name",
        f"{NODES} nodes", f"{len(nodes)} nodes, {counts.pop()} files each", len(nodes) == NODES and not counts)
    writes = refused("kubectl", "-n", "restricted", "exec", servers[0]["metadata"]["name"], "-c", "app", "--", "python3", "-c", "open('/var/lib/p2pagent/hub/x', 'w')")
    row("such a pod writes into the cache", "refused", "refused" if "Read-only file system" in writes else writes or "it can", "Read-only file system" in writes)
    removes = refused("kubectl", "-n", "restricted", "exec", servers[0]["metadata"]["name"], "-c", "app", "--", "python3", "-c", REMOVE)
    row("it asks the agent to remove the model", "refused", "refused" if "403" in removes else removes or "it can", "403" in removes)
    row("Hub bytes for all of them", "0", hub.body() - before, hub.body() == before)


REMOVE = """
import http.client, json, socket
c = http.client.HTTPConnection('agent')
c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect('/var/lib/p2pagent/run/agent.sock')
c.request('POST', '/v1/remove', json.dumps({'ref': 'org/name', 'dry_run': False}), {'Content-Type': 'application/json'})
raise SystemExit(str(c.getresponse().status))
"""


def init_container(hub):
    example("init-container.yaml")
    path = snapshot_in(finished("init-container"))
    row("init-container.yaml: fetched on the node's socket, read offline", "a snapshot", path.rsplit("/hub/")[-1][:44] + "…", "/hub/models--org--name/snapshots/" in path)


def endpoint(hub):
    upgrade("--set", "gateway.enabled=true")
    until("agents that see each other", settled)
    before = hub.body()
    example("hf-endpoint.yaml")
    path = snapshot_in(finished("hf-endpoint"))
    row("hf-endpoint.yaml: an unmodified client by the node's address; Hub bytes", "a snapshot; 0", f"{path[:20]}…; {hub.body() - before}",
        "/snapshots/" in path and hub.body() == before)


AS_XET = """
import hashlib, os, huggingface_hub as h
path = h.hf_hub_download('org/xet', 'model-00001-of-00001.safetensors')
print('as Xet' if os.path.isdir('/cache/xet') else 'as HTTP', hashlib.file_digest(open(path, 'rb'), 'sha256').hexdigest())
"""


def xet(hub):
    """The same with a client that prefers Xet, of a Hub that has a store."""
    other = Hub(8090, [f"org/xet={48 * MIB}:1:2"], "-xet")
    upgrade("--set", f"gateway.enabled=true,gateway.xet=all,config.hub-endpoint=http://{other.address}")
    until("agents that see each other", settled)
    pod = (kubernetes / "examples/hf-endpoint.yaml").read_text()
    pod = "".join(line for line in pod.replace("name: hf-endpoint", "name: as-xet").splitlines(True) if "HF_HUB_DISABLE_XET" not in line)
    pod = pod.replace('"import huggingface_hub as h; print(h.snapshot_download(\'org/name\'))"', json.dumps(AS_XET))
    kubectl("apply", "-f", "-", input=pod)
    log = finished("as-xet").splitlines()[-1]
    want = json.loads(agent(get("pod", "as-xet")["spec"]["nodeName"], "show", "org/xet", "--format", "json"))["contents"][0]["digest"]
    copies = other.stats()["stored_bytes"] / other.stats()["store_bytes"]
    row("gateway.xet: the same without HF_HUB_DISABLE_XET, its digest; bytes that the store sent ÷ those it has", f"as Xet {want[:12]}; ≤ 1.01", f"{log[:19]}; {copies:.4f}",
        log == f"as Xet {want}" and 1 <= copies <= 1.01)
    upgrade("--set", f"gateway.xet=false,config.hub-endpoint=http://{hub.address}")
    until("agents that see each other", settled)


def labels(hub):
    upgrade("--set", "nodeLabels.enabled=true")
    until("agents that are ready", settled)
    labelled = lambda key: {n["metadata"]["name"]: n["metadata"]["labels"].get(key) for n in get("nodes")}
    name = until("labels for org/name", lambda: (x := labelled("p2pagent.dev/models--org--name")) and all(x.values()) and x)
    example("node-label.yaml")
    time.sleep(3)
    waiting = get("pod", "node-label")["status"]["phase"]
    agent("gpu-2", "fetch", "org/labelled", "--format", "quiet")
    finished("node-label")
    where = get("pod", "node-label")["spec"]["nodeName"]
    row("nodeLabels: every node has the label of what is complete on it; the pod of node-label.yaml waits for its own", "all; Pending, then gpu-2",
        f"{sum(map(bool, name.values()))}; {waiting}, then {where}", (waiting, where) == ("Pending", "gpu-2"))
    agent("gpu-2", "rm", "org/labelled", "--yes")
    until("the label's end", lambda: not labelled("p2pagent.dev/models--org--labelled")["gpu-2"])
    pod = pods()["gpu-1"]["metadata"]["name"]
    token = kubectl("-n", NS, "create", "token", "p2pagent", "--bound-object-kind=Pod", f"--bound-object-name={pod}").strip()
    tries = {"its own label": ("gpu-1", {"metadata": {"labels": {"p2pagent.dev/x": "1"}}}), "another node": ("gpu-2", {"metadata": {"labels": {"p2pagent.dev/x": "1"}}}),
             "another label": ("gpu-1", {"metadata": {"labels": {"role": "1"}}}), "a label away": ("gpu-1", {"metadata": {"labels": {"nvidia.com/gpu.present": None}}}),
             "a taint away": ("gpu-1", {"spec": {"taints": None}}), "an annotation": ("gpu-1", {"metadata": {"annotations": {"x": "1"}}}),
             "its status": ("gpu-1/status", {"status": {"conditions": []}})}
    codes = {what: api(token, "PATCH", f"nodes/{node}", patch) for what, (node, patch) in tries.items()}
    codes["reading nodes"], codes["reading secrets"] = api(token, "GET", "nodes"), api(token, "GET", f"namespaces/{NS}/secrets")
    may = [what for what, (code, _) in codes.items() if code == 200]
    odd = {what: x for what, x in codes.items() if x[0] not in (200, 403) and "ValidatingAdmissionPolicy" not in x[1]}
    row("the token of that container, of what it may: " + ", ".join(codes), "its own label", ", ".join(may) or "nothing", may == ["its own label"] and not odd)


def api(token, method, path, body=None):
    """What the API server answers to the bearer of a token."""
    r = urllib.request.Request(f"{cluster.API}/api/v1/{path}", method=method, data=body and json.dumps(body).encode(),
                               headers={"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"})
    try:
        with urllib.request.urlopen(r, timeout=20, context=ssl._create_unverified_context()) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def key():
    return get("secret", "p2pagent-swarm-key", "-n", NS)["data"]["swarm.key"]


def identities():
    return {n: json.loads(agent(n, "status", "--format", "json"))["peer_id"] for n in pods()}


def new_image(hub):
    """An upgrade of everything while a model is on its way: the fleet's wish is in the configuration."""
    old_key, old = key(), identities()
    hub.rate(24 * MIB)
    before = hub.body()
    wish("org/upgraded")
    until("a fetch under way", lambda: hub.body() - before > 40 * MIB)
    start = time.monotonic()
    upgrade("--set", "image.tag=0.2.0,updateStrategy.rollingUpdate.maxUnavailable=34%")
    took = time.monotonic() - start
    hub.rate(0)
    until("the model on every node", lambda: complete("org/upgraded"))
    twice = hub.body() - before - size_of("org/upgraded")
    versions = {lines(x)[0]["version"] if x.startswith("{") else x for x in everywhere("version").values()}
    row("helm upgrade to another image while a model comes: bytes that the Hub sent twice, of pieces that were under way in agents that stopped",
        f"≤ {NODES} × 32 MiB", f"{twice / MIB:.0f} MiB (rolled out in {took:.0f} s)", 0 <= twice <= NODES * UNFINISHED)
    row("version, key and identities afterwards", "new, same, same", f"{' '.join(v.split()[1] for v in versions)}, {'same' if key() == old_key else 'OTHER'}, {'same' if identities() == old else 'OTHER'}",
        key() == old_key and identities() == old and all("0.2.0" in v for v in versions))
    before = hub.body()
    took = fetched("org/name")
    moved = sum(map(moved_by, took.values()))
    row("fetch of what was here before: bytes from the Hub and from members", "0", moved + hub.body() - before, moved == 0 and hub.body() == before)
    again = sh("helm", "template", "p2pagent", chart, "-n", NS, "--show-only", "templates/secret.yaml")
    why = refused("kubectl", "apply", "-f", "-", input=again)
    row("a tool that renders another key into the Secret", "refused", "refused" if "immutable" in why else why or "it can", "immutable" in why)


def loss(hub):
    """A node goes without a word in the middle of a fetch, and comes back."""
    fetched("org/name")
    hub.rate(24 * MIB)
    before = hub.body()
    wish("org/lost")
    until("a fetch under way", lambda: settled() and hub.body() - before > 60 * MIB)
    lost = c.nodes[2]
    lost.lose()
    rest = [n.name for n in c.nodes if n is not lost]
    start = time.monotonic()
    hub.rate(0)
    until("the model on the nodes that are left", lambda: complete("org/lost", rest))
    copies = (hub.body() - before) / size_of("org/lost")
    row("a node is lost in the middle of a fetch: the others finish; Hub body bytes ÷ model bytes", "≤ 1.05", f"{time.monotonic() - start:.0f} s; {copies:.3f}", 0.99 <= copies <= 1.05)
    since, start = time.time(), time.monotonic()
    lost.start()
    until("the lost node's agent", settled)
    until("its model", lambda: complete("org/lost", [lost.name]))
    took, more = time.monotonic() - start, hub.body_since(since)
    row("it comes back, and finishes from the others; bytes that were asked of the Hub since", "0", f"{more} ({took:.0f} s)", more == 0)
    again = moved_by(fetched("org/name")[lost.name])
    row("what it had before, fetched again: bytes moved", "0", again, again == 0)


def probes(hub):
    node, disk = c.nodes[0].name, c.nodes[0].disk / "models"
    os.chown(disk / "hub", 0, 0)
    until("a pod that is not ready", lambda: not is_ready(pods()[node]))
    row("readiness: the cache can't be written", "not ready, not restarted", f"not ready, {restarts(node)} restarts", restarts(node) == 0)
    os.chown(disk / "hub", 65532, 65532)
    until("a pod that is ready", settled)
    victim = next(p for p in agents_of(c.nodes[0]))
    os.kill(victim, signal.SIGSTOP)
    until("a restart of a hung agent", lambda: restarts(node) == 1)
    until("a pod that is ready", settled)
    row("liveness: an agent that hangs (SIGSTOP)", "restarted", f"{restarts(node)} restart", True)


def restarts(node):
    return next(s["restartCount"] for s in pods()[node]["status"]["containerStatuses"] if s["name"] == "agent")


def agents_of(node):
    """Process ids of the node's agents, as seen from here."""
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (p / "cmdline").read_bytes().split(b"\0")[:2] == [b"/usr/bin/p2pagent", b"agent"] and str(node.disk) in (p / "mountinfo").read_text():
                yield int(p.name)
        except OSError:
            continue


def foreign(hub):
    """A second release on a cache that somebody else has filled."""
    there = c.nodes[0].disk / "models/foreign"
    (there / "hub").mkdir(parents=True)
    (there / "hub/CACHEDIR.TAG").touch()
    sh("chown", "-R", "1000:1000", there)
    os.chmod(there, 0o755)
    values = ["--set", "cache.hostPath=/var/lib/p2pagent/foreign", "--set", "nodeSelector.kubernetes\\.io/hostname=gpu-1", "--set", f"config.hub-endpoint=http://{hub.address}"]
    helm("install", "foreign", chart, *values)
    pod = lambda: get("pods", "-n", NS, "-l", "app.kubernetes.io/instance=foreign,app.kubernetes.io/component=agent")[0]
    until("a refusal", lambda: pod()["status"]["initContainerStatuses"][0].get("restartCount", 0) > 0)
    said = kubectl("-n", NS, "logs", pod()["metadata"]["name"], "-c", "prepare")
    row("a hub cache of uid 1000: the init container says what to do, and changes nothing", "1000:1000", said.splitlines()[0][-60:] if said else "nothing",
        "belongs to 1000:1000" in said and there.stat().st_uid == 1000)
    helm("upgrade", "foreign", chart, "--wait", "--timeout=2m", *values, "--set", "user=1000,group=1000")
    until("an agent that is ready", lambda: is_ready(pod()))
    row("the same with user=1000,group=1000", "ready; 1000", f"ready; {there.stat().st_uid}", there.stat().st_uid == 1000)
    helm("uninstall", "foreign", "--wait")


KINDS = "daemonsets,services,configmaps,secrets,networkpolicies,serviceaccounts,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,pods,controllerrevisions,endpointslices"


def uninstall(hub):
    files = lambda: sum(1 for n in c.nodes for p in (n.disk / "models/hub").rglob("*") if p.is_file())
    before = files()
    helm("uninstall", "p2pagent", "--wait")
    left = until("the end of all objects", lambda: (x := get(KINDS, "-A", "-l", "app.kubernetes.io/name=p2pagent")) or "none")
    if left != "none":
        left = until("the end of all objects", lambda: not get(KINDS, "-A", "-l", "app.kubernetes.io/name=p2pagent", "--field-selector=metadata.name!=p2pagent-test") and "none")
    row("helm uninstall: objects left (the test's pod apart); files in caches that went", "none; 0", f"{left}; {before - files()}", left == "none" and before == files())


def manifests(hub):
    """Without helm."""
    secret = state / "swarm.key"
    sh("p2pagent", "keygen", secret)
    kubectl("-n", NS, "create", "secret", "generic", "p2pagent-swarm-key", f"--from-file={secret}")
    start = time.monotonic()
    kubectl("apply", "-f", kubernetes / "p2pagent.yaml")
    until("agents", settled)
    row("the plain manifests, on what is there: ready after", "≤ 60 s", f"{time.monotonic() - start:.1f} s", time.monotonic() - start <= 60)


STORY = [install, confinement, one_copy, restricted, init_container, endpoint, xet, labels, new_image, loss, probes, foreign, uninstall, manifests]

images = [work / "pause.tar", work / "app.tar", work / "p2pagent_0.1.0.oci.tar", work / "p2pagent_0.2.0.oci.tar"]
start = time.monotonic()
c = cluster.Cluster(state, images, NODES)
print(f"{NODES} nodes ready after {time.monotonic() - start:.1f} s", flush=True)
wanted = sys.argv[4:]
if wanted == ["shell"]:
    Hub()
    sys.exit(subprocess.run(["bash"], cwd=root).returncode)
try:
    hub = Hub()
    print("| what | target | measured | |\n|---|---|---|---|")
    for chapter in STORY:
        if not wanted or chapter.__name__ in wanted or chapter is install:
            chapter(hub)
finally:
    kept = work / "log"
    subprocess.run(["rm", "-rf", kept])
    subprocess.run(["cp", "-r", state / "log", kept])
print(f"all of it took {time.monotonic() - began:.0f} s")
print(f"{rows[True]} passed, {rows[False]} failed")
sys.exit(bool(rows[False]))
