"""Checks metrics, alerts and dashboard with a real Prometheus: check.py BIN TOOLS DEPLOY WORK."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

bin_, tools, deploy, work = map(pathlib.Path, sys.argv[1:])
AGENTS = 3
SIZE = 48 << 20
PATIENCE = 60  # seconds that anything may take
running = []
passed = failed = 0


def check(what, ok, why=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
    print(("ok   " if ok else "FAIL ") + what + ("" if ok else f": {why}"), flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(name, *command, **more):
    log = open(work / f"{name}.log", "wb")
    p = subprocess.Popen([str(c) for c in command], stderr=log, stdout=more.pop("stdout", log), **more)
    running.append(p)
    return p


def get(url):
    with urllib.request.urlopen(url, timeout=10) as r:
        return r.read().decode()


def until(what, ok):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if ok():
                return
        except (OSError, urllib.error.URLError):
            pass
        if time.monotonic() > end:
            raise SystemExit(f"metrics: waited {PATIENCE} s in vain for {what}")
        time.sleep(0.2)


def tool(*args, **more):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=PATIENCE, **more)


class Fleet:
    def __init__(self):
        hub = start("hub", bin_ / "hubserver", "-listen", "127.0.0.1:0", "-generate", f"org/name={SIZE}:3:4", stdout=subprocess.PIPE, text=True)
        self.hub = re.search(r"endpoint=(\S+)", hub.stdout.readline()).group(1)
        tool(bin_ / "p2pagent", "keygen", work / "key")
        self.metrics = [f"127.0.0.1:{free_port()}" for _ in range(AGENTS)]
        gossip = [free_port() for _ in range(AGENTS)]
        self.gateways = [f"127.0.0.1:{free_port()}" for _ in range(AGENTS)]
        for i in range(AGENTS):
            start(f"agent{i}", bin_ / "p2pagent", "agent", "--swarm-key-file", work / "key", "--bind", "127.0.0.1",
                  "--gossip-port", gossip[i], "--swarm-port", 0, "--hub-cache", work / f"hub{i}", "--state-dir", work / f"state{i}",
                  "--socket", self.socket(i), "--hub-endpoint", self.hub, "--metrics-addr", self.metrics[i], "--label", f"node=node{i}", "--gateway", self.gateways[i],
                  *(["--join", f"127.0.0.1:{gossip[0]}"] if i else []))
        for m in self.metrics:
            until(f"{m} to be ready", lambda: get(f"http://{m}/readyz"))

    def socket(self, i):
        return work / f"s{i}"

    def fetch(self):
        jobs = [subprocess.Popen([str(bin_ / "p2pagent"), "fetch", "org/name", "--format", "quiet", "--socket", str(self.socket(i))],
                                 stdout=subprocess.DEVNULL) for i in range(AGENTS)]
        return [j.wait(PATIENCE) for j in jobs]

    def read(self):
        """A file through each gateway, and one that is not there."""
        for g in self.gateways:
            path = json.loads(get(f"http://{g}/api/models/org/name"))["siblings"][0]["rfilename"]
            with urllib.request.urlopen(f"http://{g}/org/name/resolve/main/{path}", timeout=10) as r:
                assert r.read()
            try:
                get(f"http://{g}/org/name/resolve/main/none")
                raise SystemExit("metrics: a gateway has a file that nobody has")
            except urllib.error.HTTPError as e:
                assert e.code == 404


class Prometheus:
    def __init__(self, targets):
        self.url = f"http://127.0.0.1:{free_port()}"
        shutil.copy(deploy / "prometheus/alerts.yaml", work)
        config = (deploy / "prometheus/scrape.yaml").read_text()
        config = re.sub(r"targets: \[.*\]", "targets: " + json.dumps(targets), config).replace("scrape_interval: 15s", "scrape_interval: 1s")
        (work / "prometheus.yml").write_text("global: {evaluation_interval: 1s}\n" + config)
        start("prometheus", tools / "prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb",
              f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn")
        until("prometheus", lambda: get(self.url + "/-/ready"))

    def query(self, expr):
        return self.ask("/api/v1/query?" + urllib.parse.urlencode({"query": expr}))["result"]

    def ask(self, path):
        try:
            return json.loads(get(self.url + path))["data"]
        except urllib.error.HTTPError as e:
            raise ValueError(e.read().decode()) from e


def check_files():
    for what, command in {
        "promtool check rules": ["check", "rules", "alerts.yaml"],
        "promtool test rules": ["test", "rules", "alerts_test.yaml"],
        "promtool check config": ["check", "config", "scrape.yaml"],
    }.items():
        r = tool(tools / "promtool", *command, cwd=deploy / "prometheus")
        check(what, r.returncode == 0, r.stdout + r.stderr)


def check_scrape(targets):
    for t in targets:
        r = tool(tools / "promtool", "check", "metrics", input=get(f"http://{t}/metrics"))
        check(f"promtool check metrics on {t}", r.returncode == 0 and not r.stdout + r.stderr, r.stdout + r.stderr)


def expressions():
    board = json.loads((deploy / "grafana/p2pagent.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")


def check_dashboard(prometheus):
    seen = 0
    for title, expr in expressions():
        seen += 1
        try:
            result = prometheus.query(expr)
        except ValueError as e:
            check(f"panel {title!r}", False, e)
            continue
        bad = [r for r in result if r["value"][1] == "NaN"]
        check(f"panel {title!r}: {len(result)} series", result and not bad, f"{expr} returns {result}")
    check("the dashboard has panels", seen > 20, seen)


def check_histograms(prometheus, fleet):
    for name, least in {"piece_fetch_duration": AGENTS, "extent_fetch_duration": 1, "job_duration": AGENTS, "gateway_first_byte": AGENTS}.items():
        n, total = (float(prometheus.query(f"sum(p2pagent_{name}_seconds_{x})")[0]["value"][1]) for x in ("count", "sum"))
        check(f"{name}: {n:.0f} observed, {total:.2f} s", n >= least and total > 0, "too few")
    refused = float(prometheus.query('sum(p2pagent_gateway_requests_total{code="4xx"})')[0]["value"][1])
    check("the gateways' refusals are counted", refused == AGENTS, refused)


def check_alerts(prometheus):
    groups = prometheus.ask("/api/v1/rules")["groups"]
    rules = [r for g in groups for r in g["rules"]]
    ill = [r["name"] + ": " + r.get("lastError", "") for r in rules if r["health"] != "ok"]
    check(f"{len(rules)} alerts are evaluated", len(rules) >= 8 and not ill, ill)
    firing = [r["name"] for r in rules if r["state"] == "firing"]
    check("a healthy fleet raises no alert", not set(firing) - {"P2PAgentCacheNearlyFull"}, firing)


def check_copies(prometheus):
    size = float(prometheus.query("max(p2pagent_snapshot_bytes)")[0]["value"][1])
    for _, expr in [e for e in expressions() if e[0] == "Upstream copies"]:
        copies = float(prometheus.query(expr)[0]["value"][1])
        check(f"upstream copies {copies:.4f} on {AGENTS} agents", abs(copies - 1) < 0.01 and size > SIZE, f"of {size} bytes")
    peers = float(prometheus.query('sum(p2pagent_peer_bytes_total{direction="in"})')[0]["value"][1])
    # The last pieces may be asked of two members, so one or the other may come twice.
    check("the rest came from members", AGENTS - 1.01 < peers / size < AGENTS - 0.5, f"{peers} bytes of {size}")


def main():
    check_files()
    fleet = Fleet()
    prometheus = Prometheus(fleet.metrics)
    until("a first scrape of all", lambda: len(prometheus.query("p2pagent_build_info")) == AGENTS)
    codes = fleet.fetch()
    check("fetch on all agents", codes == [0] * AGENTS, codes)
    fleet.read()
    until("the end of the fetch to be scraped", lambda: len(prometheus.query("p2pagent_snapshot_ready == 1")) == AGENTS)
    until("each gateway's refusal to be scraped", lambda: len(prometheus.query('p2pagent_gateway_requests_total{code="4xx"} > 0')) == AGENTS)
    until("two samples of it", lambda: len(prometheus.query("count_over_time(p2pagent_snapshot_ready[3s]) >= 2")) == AGENTS)
    until("the alerts to be evaluated", lambda: all(r["health"] == "ok" for g in prometheus.ask("/api/v1/rules")["groups"] for r in g["rules"]))
    check_scrape(fleet.metrics)
    check_copies(prometheus)
    check_dashboard(prometheus)
    check_histograms(prometheus, fleet)
    check_alerts(prometheus)


try:
    main()
finally:
    for p in running:
        p.terminate()
    for p in running:
        try:
            p.wait(15)
        except subprocess.TimeoutExpired:
            p.kill()
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
