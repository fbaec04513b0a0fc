"""fleet.py - a Hub and p2pagent agents on the hosts of a lab, and what is measured of them.

Runs inside a lab (see lab.py). Control goes over unix sockets, which network namespaces do not separate, so nothing
but the traffic under test crosses the lab's links."""
import concurrent.futures
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import time

import lab
from hosts import Failed, Host, Hub, clean_env, wait

MB = 1 << 20
REPO = "demo/model"
GOSSIP_PORT, SWARM_PORT = 7946, 7947


# ---------------------------------------------------------------- agents

class Node(Host):
    def __init__(self, fleet, name):
        super().__init__(fleet, name)
        self.socket, self.hf_home = f"{fleet.sockets}/{name}", f"{self.dir}/hf"
        self.job = self.done = self.path = None
        self.binary, self.extra_env, self.awaited = f"{fleet.bin}/p2pagent", {}, True   # awaited: a run ends only when this one is done

    def env(self):
        return clean_env(HF_HOME=self.hf_home, HF_ENDPOINT=self.fleet.hub.endpoint, HOME=self.dir, TMPDIR=self.dir, **self.extra_env)

    def flags(self, join=None):
        """Those of `p2pagent agent`, which --standalone takes too."""
        join = self.fleet.join if join is None else join
        return ["--state-dir", f"{self.dir}/state", "--bind", self.ip, "--gossip-port", str(GOSSIP_PORT), "--swarm-port", str(SWARM_PORT),
                "--swarm-key-file", self.fleet.key, *(["--join", join] if join else [])]

    def agent(self, *more, join=None):
        self.down = False
        self.agent_process = self.start([self.binary, "agent", *self.flags(join), "--socket", self.socket, *more], self.env())

    def command(self, *argv, timeout=10):
        """Runs one short command against this node's agent; returns (exit code, stdout)."""
        p = subprocess.run([self.binary, *argv, "--socket", self.socket], env=self.env(), text=True, timeout=timeout,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log)
        return p.returncode, p.stdout

    def status(self):
        """What `p2pagent status` says, or None while no agent answers."""
        try:
            code, text = self.command("status", "--format", "json")
            return json.loads(text) if code == 0 else None
        except (subprocess.TimeoutExpired, ValueError):
            return None

    def members(self):
        """How many live members this node's agent sees, itself included."""
        return seen_members(self.status() or {})

    def fetch(self, *more, ref=REPO):
        """Starts `p2pagent fetch`; reap() and poll() tell when it ends."""
        self.out = open(f"{self.dir}/fetch.out", "w+")
        self.done = self.path = None
        self.job = self.start([self.binary, "fetch", ref, "--socket", self.socket, "--format", "quiet", *more], self.env(), self.out)

    def poll(self):
        """True once the fetch has succeeded; Failed if it has not."""
        self.reap()
        if self.job is None or self.job.returncode is None:
            return False
        if self.job.returncode:
            raise Failed(f"{self.name}: fetch ended with {self.job.returncode}, see {self.log.name}: {self.last_words()}")
        if self.path is None:
            self.out.seek(0)
            self.path = (self.out.read().strip().splitlines() or [""])[-1]
        return True

    def last_words(self):
        with open(self.log.name, errors="replace") as f:
            return " | ".join(f.read().splitlines()[-2:])[-400:]

    def wrong_files(self, sums):
        """Paths of the snapshot that are missing, differ or should not be there.

        Without sums (the Hub made the model up) every blob must have the digest that is its name."""
        want = dict(sums)
        have = {os.path.relpath(os.path.join(top, f), self.path) for top, _, names in os.walk(self.path) for f in names} if self.path else set()
        if not sums:
            want = {p: os.path.basename(os.readlink(f"{self.path}/{p}")) for p in have} or {"(no file)": ""}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            return sorted(have ^ set(want)) + [p for p, got in pool.map(lambda p: (p, digest(f"{self.path}/{p}", want[p])), have & set(want)) if got != want[p]]


def digest(path, like):
    """The digest of a file in the form of `like`: SHA-256, or git's SHA-1 of a blob when that has 40 digits."""
    with open(path, "rb") as f:
        if len(like) == 40:
            content = f.read()
            return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()
        return hashlib.file_digest(f, "sha256").hexdigest()


# What is read out of `p2pagent status --format json` is read here and nowhere else.

def seen_members(status):
    return status["members"] + 1 if "members" in status else 0      # it counts the others


def own_id(status):
    return (status or {}).get("peer_id", "")


def bans(status):
    return [peer["peer_id"] for peer in (status or {}).get("banned") or []]


# ---------------------------------------------------------------- all of them

class Fleet:
    """data: where nodes keep their files (default: the lab's RAM disk, gone with the lab)."""

    def __init__(self, binaries, model, sums, logs, data=lab.DATA):
        self.where, self.bin, self.model, self.logs, self.data = lab.Lab(), binaries, model, logs, data
        shutil.rmtree(logs, ignore_errors=True)
        os.makedirs(logs)
        self.sockets = f"{lab.RUN}/s"
        os.makedirs(self.sockets, exist_ok=True)
        self.key = f"{lab.RUN}/swarm.key"
        self.sums = read_sums(sums) if sums else []
        self.size = sum(os.path.getsize(f"{model}/{p}") for p, _ in self.sums) if model else 0
        self.source = ["-model", f"{REPO}={model}"]
        self.hub = Hub(self, "hub")
        self.nodes = [Node(self, n) for n in self.where.nodes]
        self.join = ",".join(f"{n.ip}:{GOSSIP_PORT}" for n in self.nodes[:4])    # one seed alone may be slow to be seen
        self.keygen()

    def keygen(self):
        p = subprocess.run([f"{self.bin}/p2pagent", "keygen"], text=True, capture_output=True, env=clean_env(), timeout=30)
        if p.returncode:
            raise Failed(f"p2pagent keygen: {p.stderr.strip()}")
        with open(os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(p.stdout)

    def serve(self, *more):
        self.hub.serve(*self.source, *more)
        if not self.size:
            self.size = self.hub.stats()["model_bytes"]

    def start(self, *more, nodes=None):
        """Starts agents and waits until each answers and sees all the others."""
        nodes = nodes or self.nodes
        for n in nodes:
            n.agent(*more)
        for n in nodes:
            wait(f"{n.name} sees {len(nodes)} members", 60, lambda: n.members() >= len(nodes), 0.2)

    def live(self):
        return [n for n in self.nodes if not n.down]

    def fetch(self, timeout, hook=None, nodes=None, ref=REPO):
        """Fetches on all nodes at once and measures; hook(elapsed, hub stats) is called about four times a second.

        Nodes that a hook killed are not waited for. Returns the figures as a dict."""
        nodes = nodes or self.nodes
        before, used = self.where.counters(), {h: h.usage()[0] for h in (self.hub, *nodes)}
        body, start = self.hub.stats(), time.monotonic()
        for n in nodes:
            n.fetch(ref=ref)
        trace, anon, sampled = [], [], 0.0
        while not all([n.down or self.finished(n, start) or not n.awaited for n in nodes]):
            now = time.monotonic() - start
            if now > timeout:
                late = [n.name for n in nodes if n.awaited and not n.down and n.done is None]
                raise Failed(f"not done within {timeout} s: {late}; Hub sent {self.hub.stats()['body_bytes'] / self.size:.2f} copies")
            if now - sampled >= 0.25:
                sampled = now
                trace.append(self.sample(now, before, nodes))
                anon.append(max(n.usage()[1] for n in nodes))
                if hook:
                    hook(now, self.hub.stats())
            time.sleep(0.02)
        late = anon[len(anon) // 2:] or [0]
        return self.figures(nodes, before, used, body, trace) | {"anon_steady": statistics.median(late)}

    @staticmethod
    def finished(node, start):
        if node.done is None:
            try:
                ended = node.poll()
            except Failed:
                if node.awaited:
                    raise
                ended = False
            node.done = time.monotonic() - start if ended else None
        return node.done is not None

    def sample(self, now, before, nodes):
        moved = self.where.counters()
        return [round(now, 2), moved["hub"]["sent"] - before["hub"]["sent"], *(moved[n.name]["recv"] - before[n.name]["recv"] for n in nodes)]

    def figures(self, nodes, before, used, body, trace):
        after, stats = self.where.counters(), self.hub.stats()
        moved = {n: {k: after[n][k] - before[n][k] for k in ("sent", "recv")} for n in after}
        cpu = {h.name: h.usage()[0] - used[h] for h in (self.hub, *nodes)}
        done = {n.name: round(n.done, 3) for n in nodes if n.done is not None}
        return {
            "size": self.size, "nodes": len(nodes), "done": done, "last": max(done.values(), default=0),
            "median": statistics.median(done.values()) if done else 0,
            "hub_wire": moved["hub"]["sent"], "copies_wire": moved["hub"]["sent"] / self.size,
            "stored": stats["stored_bytes"] - body["stored_bytes"], "store": stats["store_bytes"],
            "hub_body": stats["body_bytes"] - body["body_bytes"], "copies": (stats["body_bytes"] - body["body_bytes"]) / self.size,
            "calls": {k: v - body["calls"].get(k, 0) for k, v in stats["calls"].items() if v != body["calls"].get(k, 0)},
            "max_coverage": stats.get("max_coverage"), "moved": moved,
            "sent_worst": max(moved[n.name]["sent"] for n in nodes) / self.size,
            "cpu_hub": cpu.pop("hub"), "cpu_agents": sum(cpu.values()), "anon_max": max(n.anon_peak for n in nodes), "trace": trace,
        }

    def verify(self, nodes=None):
        """Reads every file of every node that finished; Failed names what is wrong. Outside the clock."""
        wrong = {n.name: bad for n in (nodes or self.nodes) if n.done is not None and (bad := n.wrong_files(self.sums))}
        if wrong:
            raise Failed(f"wrong content: {wrong}")

    def close(self, grace=10.0):
        """SIGTERM to every process we started, SIGKILL to what is left; names those that did not go by themselves."""
        stubborn = []
        for sig, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for h in (*self.nodes, self.hub):
                h.signal_all(signal.SIGCONT)
                h.signal_all(sig)
            end = time.monotonic() + patience
            while time.monotonic() < end and any(h.running for h in (self.hub, *self.nodes)):
                for h in (self.hub, *self.nodes):
                    h.reap()
                time.sleep(0.02)
            stubborn = stubborn or [h.name for h in (self.hub, *self.nodes) if h.running]
        return stubborn


def read_sums(path):
    """[(relative path, sha256)] of a file as sha256sum writes it."""
    with open(path) as f:
        return [tuple(reversed(line.rstrip("\n").split("  ", 1))) for line in f]


# ---------------------------------------------------------------- bounds

def floor(size, nodes, hub_up, node_up, node_down, wire=1448 / 1514):
    """Seconds that no scheme can beat: the fluid bound of the caps (bit/s, 0 = none).

    wire is the payload per byte on the wire: TCP with time stamps at MTU 1500."""
    up, send, down = (lab.bits(x) or float("inf") for x in (hub_up, node_up, node_down))
    each = 8 * size / wire
    return max(each / up, each / down, nodes * each / (up + nodes * send))
