"""rows.py - what `make bench` measures: one Row for each experiment, each with the targets that it is judged by.

play() runs inside a fresh lab, once for every variant of the row, and returns figures; judge() turns the figures of all
variants into metrics. Add a row by adding it to ROWS."""
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
import typing

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE) + "/lab")
import aria2                                                # noqa: E402 (the lab's folder must be on the path first)
import fleet                                                # noqa: E402
from fleet import MB                                        # noqa: E402

GIB = 1024                                                  # model sizes are in MiB
WIDE = {"hub_up": "200mbit", "hub_down": "800mbit", "node_up": "800mbit", "node_down": "800mbit"}
NARROW = {"hub_up": "100mbit", "hub_down": "400mbit", "node_up": "400mbit", "node_down": "400mbit"}
FREE = dict.fromkeys(WIDE, "0")


@dataclasses.dataclass
class Metric:
    what: str
    target: str
    value: str
    ok: bool


@dataclasses.dataclass
class Row:
    name: str
    what: str
    nodes: int
    play: typing.Callable                                   # (fleet, variant, caps) -> figures
    judge: typing.Callable                                  # ({variant: figures}) -> [Metric]
    caps: dict = dataclasses.field(default_factory=lambda: WIDE)
    size: int = GIB                                         # MiB, in `shards` files and ten small ones
    shards: int = 8
    variants: tuple = ("",)
    disk: bool = False                                      # nodes keep their files on disk, not in memory
    generated: dict = dataclasses.field(default_factory=dict)   # variant -> SIZE:FILES:SMALL that the Hub makes up
    timeout: float = 300                                    # s for one fetch
    kind: tuple = ()                                        # flags of mkmodel


def floor(figures, caps):
    return fleet.floor(figures["size"], figures["nodes"], caps["hub_up"], caps["node_up"], caps["node_down"])


# ---------------------------------------------------------------- cold at once

def cold(timeout):
    def play(f, variant, caps):
        if variant == "aria2":
            return aria2.distribute(f, timeout)
        f.serve()
        f.start()
        r = f.fetch(timeout)
        r["floor"] = floor(r, caps)
        f.verify()
        return r
    return play


def copies(r, most):
    return Metric(f"Hub body bytes ÷ model bytes, N = {r['nodes']} cold at once, {r['size'] // MB} MiB", f"≤ {most}",
                  f"{r['copies']:.4f} (interface: {r['copies_wire']:.3f})", r["copies"] <= most)


def calls(r):
    api = {k: v for k, v in r["calls"].items() if k in API}
    return Metric(f"Hub API calls, N = {r['nodes']}", "1 resolve + 1 listing", ", ".join(f"{v} {k}" for k, v in sorted(api.items())),
                  len(api) <= 2 and all(v == 1 for v in api.values()))


def pace(r, most):
    value = r["last"] / r["floor"]
    return Metric(f"time of the last node ÷ floor, N = {r['nodes']}", f"≤ {most}", f"{value:.3f} ({r['last']:.1f} s ÷ {r['floor']:.1f} s)", value <= most)


def fair(r, most):
    return Metric(f"what the busiest sender sent ÷ model bytes, N = {r['nodes']}", f"≤ {most}", f"{r['sent_worst']:.2f}", r["sent_worst"] <= most)


def judge_cold(timed=True, cpu=None):
    def judge(figures):
        r = figures[""]
        out = [copies(r, 1.01), calls(r)]
        if timed:
            out += [pace(r, 1.10), fair(r, 1.3)]
        if cpu:
            theirs = figures["aria2"]["cpu_agents"]
            out.append(Metric(f"CPU seconds of all agents, N = {r['nodes']}, {r['size'] // MB} MiB", f"≤ {cpu}", f"{r['cpu_agents']:.1f} (aria2 in the same run: {theirs:.1f})", r["cpu_agents"] <= cpu))
        out.append(Metric(f"anonymous memory of the largest agent, N = {r['nodes']}", "≤ 150 MiB", f"{r['anon_max'] / MB:.0f} MiB", r["anon_max"] <= 150 * MB))
        return out
    return judge


API = ("info", "tree", "paths", "refs")                     # routes that cost API quota: info resolves, tree lists


# ---------------------------------------------------------------- faults

def busiest(f, stats):
    """The node that has had most from the Hub."""
    return max(f.live(), key=lambda n: stats["clients"].get(n.ip, 0))


def once(condition, action):
    """A hook that acts the first time that condition(stats) holds, and remembers when."""
    def hook(_elapsed, stats):
        if hook.at is None and condition(stats):
            hook.at = time.time()
            hook.result = action(stats)
    hook.at = hook.result = None
    return hook


def past(f, share):
    return lambda stats: stats["body_bytes"] >= share * f.size


def play_killed(f, _variant, _caps):
    f.serve()
    f.start()

    def kill(stats):
        victim = busiest(f, stats)
        victim.kill()
        return victim.name
    hook = once(past(f, 0.5), kill)
    r = f.fetch(240, hook)
    f.verify(f.live())
    return r | {"victim": hook.result, "finished": len(r["done"])}


def judge_killed(figures):
    r = figures[""]
    return [Metric("the same, the busiest fetching member killed with -9 at 50 %", "≤ 1.05", f"{r['copies']:.4f} (interface: {r['copies_wire']:.3f})", r["copies"] <= 1.05),
            Metric("the other members finish", f"{r['nodes'] - 1} of {r['nodes'] - 1}", f"{r['finished']} of {r['nodes'] - 1}, last after {r['last']:.1f} s",
                   bool(r["victim"]) and r["finished"] == r["nodes"] - 1)]


def play_stall(f, _variant, _caps):
    f.serve()
    f.start()
    shard = f.sums[[p for p, _ in f.sums].index("model-00002-of-00008.safetensors")][0]
    f.hub.stall(shard, 20 * MB)
    r = f.fetch(240)
    f.verify()
    requests = f.hub.requests()
    stalled = [q for q in requests if q["stalled"]]
    if not stalled:
        raise fleet.Failed("the Hub was never asked for the bytes that it should have stalled at")
    q = stalled[0]
    return r | {"noticed": (q["ended"] or float("inf")) - q["stalled"], "replaced": replaced(requests, q, q["stalled"])}


def replaced(requests, broken, since):
    """Seconds from `since` until somebody asked the Hub again for the first byte that the broken request still owed."""
    at = broken["from"] + broken["sent"]
    again = [q["began"] for q in requests if q is not broken and q["path"] == broken["path"] and q["began"] > since and q["from"] <= at <= q["to"]]
    return min(again, default=float("inf")) - since


def bounded(r, what):
    return [Metric(f"{what}: noticed after", "≤ 15 s", f"{r['noticed']:.1f} s", round(r["noticed"], 1) <= 15),
            Metric(f"{what}: replaced after", "≤ 30 s", f"{r['replaced']:.1f} s; all done after {r['last']:.1f} s, {r['copies']:.3f} copies", r["replaced"] <= 30)]


def play_silent(f, _variant, _caps):
    """Cuts off, without a word to anyone, the member that is fetching most."""
    f.serve()
    f.start()
    watch = {"noticed": None}

    def cut(stats):
        victim = busiest(f, stats)
        victim.down = True
        f.where.blackhole(victim.name)
        return victim
    trigger = once(past(f, 0.3), cut)

    def hook(elapsed, stats):
        trigger(elapsed, stats)
        if trigger.at and watch["noticed"] is None and all(n.members() < len(f.nodes) for n in f.live()):
            watch["noticed"] = time.time() - trigger.at
    r = f.fetch(240, hook)
    f.verify(f.live())
    owed = [q for q in f.hub.requests() if q["client"] == trigger.result.ip and q["began"] < trigger.at and (not q["ended"] or q["ended"] > trigger.at)
            and q["from"] + q["sent"] <= q["to"]]
    late = [replaced(f.hub.requests(), q, trigger.at) for q in owed]
    return r | {"noticed": watch["noticed"] or float("inf"), "replaced": max(late, default=0), "owed": len(owed), "finished": len(r["done"])}


# ---------------------------------------------------------------- killed and started again

def play_restart(f, _variant, _caps):
    f.serve()
    f.start()
    node = f.nodes[1]
    begin = f.where.counters()[node.name]["recv"]

    def restart(_stats):
        got = f.where.counters()[node.name]["recv"] - begin
        node.kill()
        node.agent()
        fleet.wait(f"{node.name} answers again", 20, node.status)
        node.fetch()
        return got
    hook = once(lambda _: f.where.counters()[node.name]["recv"] - begin >= f.size // 2, restart)
    r = f.fetch(240, hook)
    f.verify()
    if hook.at is None:
        raise fleet.Failed("the fetch ended before the node had half of the model")
    return r | {"before": hook.result, "again": f.where.counters()[node.name]["recv"] - begin - f.size}


UNSYNCED = 128                                              # MiB: 64 between two syncs of the store, and as much in flight


def judge_restart(figures):
    r = figures[""]
    return [Metric("kill -9 of one agent at 50 %, started again: it and all others finish", f"{r['nodes']} of {r['nodes']}", f"{len(r['done'])} of {r['nodes']}, last after {r['last']:.1f} s",
                   len(r["done"]) == r["nodes"]),
            Metric("what it fetched twice, protocol overhead included", f"≤ {UNSYNCED} MiB (in flight and unsynced)", f"{r['again'] / MB:.1f} MiB of {r['size'] / MB:.0f}; {r['copies']:.4f} copies",
                   r["again"] <= UNSYNCED * MB)]


# ---------------------------------------------------------------- no caps, memory, liars, joining

def play_free(f, variant, _caps):
    if variant.startswith("aria2"):
        return aria2.distribute(f, 180) | {"version": aria2.version()}
    f.serve()
    f.start()
    r = f.fetch(180)
    f.verify()
    return r


def judge_free(figures):
    def middle(who, key):
        return statistics.median(r[key] for v, r in figures.items() if v.startswith(who))
    ours, theirs = middle("p2pagent", "last"), middle("aria2", "last")
    return [Metric("no caps, N = 4, 1 GiB: time of the last node against aria2 BitTorrent, medians of three", "faster",
                   f"{ours:.1f} s against {theirs:.1f} s (CPU seconds of the nodes: {middle('p2pagent', 'cpu_agents'):.1f} against {middle('aria2', 'cpu_agents'):.1f})", ours < theirs)]


def memory(*hub):
    def play(f, _variant, _caps):
        f.serve(*hub)
        f.start()
        r = f.fetch(900)
        f.verify()
        return r
    return play


FROM_STORE = 32                                             # MiB: 16 of pieces that chunks are copied from (what -generate makes up repeats itself), a few of notes, and the collector's third; docs/design/xet.md


def judge_memory(figures, whence="", most=16):
    """Of three runs in turn: how much is in flight in one is chance."""
    def of(size, key, which):
        return which(r[key] for v, r in figures.items() if v.startswith(size)) / MB
    small, large = of("1GiB", "anon_steady", statistics.median), of("8GiB", "anon_steady", statistics.median)
    peak = of("8GiB", "anon_max", max)
    return [Metric(f"anonymous memory of the largest agent, 8 GiB model{whence}, no caps: the most in three runs", "≤ 150 MiB", f"{peak:.0f} MiB", peak <= 150),
            Metric("its growth from a 1 GiB to an 8 GiB model: median of the second half of a run, medians of three", f"none (≤ {most} MiB)" if not whence else f"bounded (≤ {most} MiB: notes, and pieces copied from)",
                   f"{large - small:+.0f} MiB ({small:.0f} → {large:.0f}; the most: {of('1GiB', 'anon_max', max):.0f} → {peak:.0f})", large - small <= most)]


def play_liar(f, variant, _caps):
    liar = f.nodes[1]
    if variant == "liar":
        liar.binary, liar.extra_env, liar.awaited = f"{f.bin}/p2pagent-p2ptest", {"P2PAGENT_TEST_CORRUPT": "10"}, False
    f.serve()
    f.start()
    name = fleet.own_id(liar.status())
    r = f.fetch(240)
    f.verify()
    named = [n.name for n in f.nodes if n is not liar and name and name in fleet.bans(n.status())]
    return r | {"named": named}


def judge_liar(figures):
    clean, r = figures["clean"], figures["liar"]
    return [Metric("one member flips a bit in 10 % of the pieces it serves: bad bytes committed", "0", "0 (every file of every other node compared)", True),
            Metric("it is banned and named in `status`", "yes", f"by {len(r['named'])} of {r['nodes'] - 1} members", bool(r["named"])),
            Metric("last honest node ÷ clean time", "≤ 1.3", f"{r['last'] / clean['last']:.2f} ({r['last']:.1f} s ÷ {clean['last']:.1f} s)", r["last"] <= 1.3 * clean["last"])]


def play_join(f, _variant, _caps):
    f.serve()
    first, second = f.nodes
    first.agent(join="")
    fleet.wait("the first agent answers", 30, first.status)
    start = time.monotonic()
    second.agent(join=f"{first.ip}:{fleet.GOSSIP_PORT}")
    fleet.wait("both see two members", 60, lambda: second.members() == 2 and first.members() == 2, 0.02)
    return {"joined": time.monotonic() - start, "nodes": 2, "size": f.size}


def judge_join(figures):
    r = figures[""]
    return [Metric("join: from the start of a 2nd agent with --join until both see each other", "≤ 5 s", f"{r['joined']:.2f} s", r["joined"] <= 5)]


# ---------------------------------------------------------------- the content-addressed store

def play_xet(f, variant, _caps):
    f.serve("-xet")
    f.start(*(["--xet", "off"] if variant == "off" else []))
    r = f.fetch(300)
    f.verify()
    return r


def judge_xet(what, least=None):
    def judge(figures):
        r, plain = figures["on"], figures["off"]
        sent, saved = r["stored"] / r["store"], r["hub_body"] / plain["hub_body"]
        return [Metric(f"stored bytes that the store sent ÷ those it has, {what}, N = {r['nodes']} cold at once, {r['size'] // MB} MiB", "≤ 1.01", f"{sent:.4f} ({r['stored'] / MB:.1f} ÷ {r['store'] / MB:.1f} MiB)", sent <= 1.01),
                Metric(f"bytes upstream with Xet ÷ without, {what}", f"≤ {least}", f"{saved:.3f} ({r['hub_body'] / MB:.1f} ÷ {plain['hub_body'] / MB:.1f} MiB; last node after {r['last']:.1f} against {plain['last']:.1f} s)", saved <= least)]
    return judge


# What pkg/xet does with each chunk, and of which parts: bench_test.go names both.
DECODE = {"as it is": ("BenchmarkRecords/noise", ["BenchmarkLimits/blake3", "BenchmarkLimits/copy"]),
          "LZ4, text": ("BenchmarkRecords/text", ["BenchmarkLimits/blake3", "BenchmarkLimits/lz4_text"]),
          "BG4+LZ4, bfloat16": ("BenchmarkRecords/weights", ["BenchmarkLimits/blake3", "BenchmarkLimits/lz4_grouped_weights", "BenchmarkLimits/ungroup"])}


def play_decode(f, _variant, _caps):
    """Benchmarks of pkg/xet on one core; the best of seven for each: what else runs on the machine only takes away."""
    argv = ["taskset", "-c", "0", f"{f.bin}/xet.test", "-test.run=^$", "-test.bench=^Benchmark(Records|Limits)$", "-test.cpu=1", "-test.count=7", "-test.benchtime=200ms"]
    p = subprocess.run(argv, text=True, capture_output=True, timeout=600)
    speeds = {}
    for line in p.stdout.splitlines():
        words = line.split()
        if len(words) > 5 and words[5] == "MB/s":
            speeds.setdefault(words[0], []).append(float(words[4]))
    if p.returncode or not speeds:
        raise fleet.Failed(f"the benchmarks of pkg/xet failed: {p.stderr.strip()[-300:]}")
    return {"speed": {name: max(v) for name, v in speeds.items()}, "nodes": 1, "size": 0}


def judge_decode(figures):
    speed, out = figures[""]["speed"], []
    for form, (name, parts) in DECODE.items():
        limit = 1 / sum(1 / speed[p] for p in parts)
        names = " + ".join(p.split("/")[1].replace("_", " ") for p in parts)
        out.append(Metric(f"decoding and hashing stored chunks on one core, {form} ÷ its parts alone ({names})", "≥ 0.85", f"{speed[name] / limit:.2f} ({speed[name]:.0f} ÷ {limit:.0f} MB/s)", speed[name] >= 0.85 * limit))
    return out


# ---------------------------------------------------------------- idle

SETTLE, WATCH = 75, 60                                      # s: lanes that nobody uses close after a minute; then idle begins


def resident(node):
    """Bytes of the agent that are in memory, those of its file included."""
    with open(f"/proc/{node.agent_process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) * 1024


def play_idle(f, _variant, _caps):
    """Every node fetches the model, then nobody asks for anything."""
    f.serve()
    f.start("--metrics-addr", "127.0.0.1:9464")
    f.fetch(240)
    f.verify()
    time.sleep(SETTLE)
    before, begin = {n.name: n.usage()[0] for n in f.nodes}, time.monotonic()
    time.sleep(WATCH)
    took = time.monotonic() - begin
    cpu = sorted(100 * (n.usage()[0] - before[n.name]) / took for n in f.nodes)
    return {"cpu": cpu, "rss": sorted(resident(n) for n in f.nodes), "anon": sorted(n.usage()[1] for n in f.nodes), "nodes": len(f.nodes), "size": f.size}


def judge_idle(figures):
    r = figures[""]
    return [Metric(f"an idle agent among {r['nodes']}, each with a whole model: % of a core over a minute, mean (the most)", "≤ 0.5",
                   f"{statistics.mean(r['cpu']):.2f} ({r['cpu'][-1]:.2f})", statistics.mean(r["cpu"]) <= 0.5),
            Metric(f"its resident memory, the largest of {r['nodes']}", "≤ 60 MiB", f"{r['rss'][-1] / MB:.0f} MiB (anonymous: {r['anon'][-1] / MB:.0f})", r["rss"][-1] <= 60 * MB)]


# ---------------------------------------------------------------- the gateway

GATEWAY, NGINX = "http://127.0.0.1:8090", "http://127.0.0.1:8091"
NGINX_CONF = """daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ }}
http {{ access_log off; sendfile on; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3; uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ listen 127.0.0.1:8091; root {root}; disable_symlinks off; }} }}
"""


def curl(node, url):
    """Downloads to nowhere on the node; {seconds to the first byte, seconds in all, bytes}."""
    argv = node.fleet.where.argv(node.name, ["curl", "-sSL", "--fail", "--max-time", "120", "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total} %{size_download}", url])
    p = subprocess.run(argv, text=True, capture_output=True, env=fleet.clean_env(), timeout=130)
    if p.returncode:
        raise fleet.Failed(f"curl {url}: {p.stderr.strip()}")
    first, total, size = p.stdout.split()
    return {"first": float(first), "total": float(total), "size": int(float(size))}


def play_gateway(f, _variant, _caps):
    """Cold files in turn through the gateway and straight from the Hub; then a finished one from the gateway and from nginx, in turn."""
    f.serve()
    node, hub = f.nodes[0], f.hub.endpoint
    node.agent(join="")                                     # alone: it waits for nobody
    fleet.wait("the agent answers", 30, node.status)
    paths = [p for p, _ in f.sums if p.endswith(".safetensors")]
    curl(node, f"{GATEWAY}/{fleet.REPO}/resolve/main/config.json")                       # what the branch means is known, as after a client's first call
    first = {"gateway": [], "hub": []}
    for path in paths:
        first["hub"].append(curl(node, f"{hub}/{fleet.REPO}/resolve/main/{path}")["first"])
        first["gateway"].append(curl(node, f"{GATEWAY}/{fleet.REPO}/resolve/main/{path}")["first"])
    code, shown = node.command("show", fleet.REPO, "--format", "json")
    if code:
        raise fleet.Failed("the gateway left no snapshot")
    root, conf = json.loads(shown)["path"], f"{node.dir}/nginx.conf"
    with open(conf, "w") as out:
        out.write(NGINX_CONF.format(dir=node.dir, root=root))
    node.start(["nginx", "-p", node.dir, "-c", conf])
    fleet.wait("nginx answers", 10, lambda: answers(node, f"{NGINX}/{paths[0]}"))
    rate = {"gateway": [], "nginx": []}
    for path in paths * 3:
        for who, url in (("gateway", f"{GATEWAY}/{fleet.REPO}/resolve/main/{path}"), ("nginx", f"{NGINX}/{path}")):
            r = curl(node, url)
            rate[who].append(r["size"] / r["total"])
    return {"first": first, "rate": rate, "sendfile": by_sendfile(node, f"{GATEWAY}/{fleet.REPO}/resolve/main/{paths[0]}"), "nodes": 1, "size": f.size}


def by_sendfile(node, url):
    """Downloads a finished file while strace watches the agent; {bytes that the kernel sent from the file, bytes that came}."""
    pid, out = node.agent_process.pid, f"{node.dir}/strace"
    strace = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=sendfile", "-o", out, "-p", str(pid)], stdin=subprocess.DEVNULL, stdout=node.log, stderr=node.log)
    try:
        fleet.wait("strace has the agent", 10, lambda: traced(pid))
        came = curl(node, url)["size"]
    finally:
        strace.terminate()
        strace.wait(10)
    with open(out) as f:
        return {"sent": sum(int(n) for n in re.findall(r"sendfile.*= (\d+)$", f.read(), re.MULTILINE)), "came": came}


def traced(pid):
    """Whether every thread of the process has a tracer."""
    def tracer(thread):
        with open(f"/proc/{pid}/task/{thread}/status") as f:
            return int(re.search(r"TracerPid:\s+(\d+)", f.read())[1])
    return all(tracer(t) for t in os.listdir(f"/proc/{pid}/task"))


def answers(node, url):
    try:
        return curl(node, url)
    except fleet.Failed:
        return None


def judge_gateway(figures):
    r = figures[""]
    ours, theirs = (statistics.median(r["rate"][who]) for who in ("gateway", "nginx"))
    cold, direct = (1000 * statistics.median(r["first"][who]) for who in ("gateway", "hub"))
    sent, came = r["sendfile"]["sent"], r["sendfile"]["came"]
    return [Metric("bytes of a finished file that leave by sendfile (strace) ÷ bytes that the client gets", "all but the 512 that net/http sends with the header", f"{sent / came:.6f} ({sent} ÷ {came})", came - sent <= 512),
            Metric("finished files of 128 MiB from the gateway ÷ the same from nginx, medians of 24", "≥ 0.9", f"{ours / theirs:.2f} ({ours / 1e9:.2f} ÷ {theirs / 1e9:.2f} GB/s)", ours >= 0.9 * theirs),
            Metric("first byte of a cold file through the gateway, median of eight", "one piece of 4 MiB more than from the Hub", f"{cold:.0f} ms (straight from the Hub: {direct:.0f} ms)", cold <= direct + 300)]


ROUNDS = tuple(f"{who}-{n}" for n in (1, 2, 3) for who in ("p2pagent", "aria2"))
SIZES = {f"{size}-{n}": f"{size}:8:10" for n in (1, 2, 3) for size in ("1GiB", "8GiB")}
ROWS = {r.name: r for r in (
    Row("cold4", "four cold nodes at once", 4, cold(300), judge_cold()),
    Row("cold8", "eight cold nodes at once", 8, cold(300), judge_cold(cpu=36), variants=("", "aria2")),
    Row("cold16", "sixteen cold nodes at once", 16, cold(400), judge_cold(timed=False)),
    Row("narrow16", "sixteen cold nodes, Hub 100 and nodes 400 Mbit/s", 16, cold(400), judge_cold(), caps=NARROW, size=512),
    Row("killed", "the busiest fetching member killed at 50 %", 8, play_killed, judge_killed),
    Row("free", "no caps, against aria2", 4, play_free, judge_free, caps=FREE, variants=ROUNDS),
    Row("memory", "anonymous memory, 1 and 8 GiB", 2, memory(), judge_memory, caps=FREE, variants=tuple(SIZES), disk=True, generated=SIZES),
    Row("xet", "a model in the store, eight cold nodes", 8, play_xet, judge_xet("bfloat16 weights", 0.9), size=512, shards=4, variants=("on", "off"), kind=("-normal",)),
    Row("xettwins", "files in the store that share chunks, eight cold nodes", 8, play_xet, judge_xet("shards that share chunks", 0.75), size=512, shards=2, variants=("on", "off"), kind=("-normal", "-twins")),
    Row("xetdecode", "decoding what is stored, on one core", 1, play_decode, judge_decode, size=64, shards=1),
    Row("xetmemory", "anonymous memory, 1 and 8 GiB from the store", 2, memory("-xet"), lambda f: judge_memory(f, " from the store", FROM_STORE), caps=FREE, variants=tuple(SIZES), disk=True, generated=SIZES),
    Row("liar", "a member that serves flipped bits", 4, play_liar, judge_liar, size=512, variants=("clean", "liar")),
    Row("stall", "a Hub body that stops with the socket open", 4, play_stall, lambda f: bounded(f[""], "a Hub body that stops with the socket open"), size=512),
    Row("silent", "a fetching member that goes silent", 4, play_silent, lambda f: bounded(f[""], "a peer that goes silent (nft drop)"), size=512),
    Row("restart", "kill -9 at 50 %, started again", 4, play_restart, judge_restart),
    Row("idle", "what an agent takes that has nothing to do, 16 members", 16, play_idle, judge_idle, caps=FREE, size=64, shards=2),
    Row("gateway", "the gateway against nginx, and a cold file against the Hub", 1, play_gateway, judge_gateway, caps=FREE),
    Row("join", "how long joining takes", 2, play_join, judge_join, size=64, shards=1),
)}
