#!/usr/bin/env python3
"""acceptance.py - p2pagent through the faults that matter, small and quick: three nodes, 128 MiB.

    acceptance.py [NAME ...]     scenarios to run; all when none is given, the lab's own selftest first
    acceptance.py --list         their names

Every scenario gets a fresh lab. Ends with 'N passed, N failed'."""
import fcntl
import json
import os
import subprocess
import sys
import time

import fleet
import lab
from fleet import MB

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
OUT = f"{ROOT}/.cache/lab"
SIZE, SHARDS, NODES = 128, 4, 3
PROMPT = 25                                                 # s: one copy over the Hub's link takes 11.3, and machines are busy
LIMIT = 600                                                 # s for one scenario, everything included


def check(ok, what):
    if not ok:
        raise fleet.Failed(what)


def told(r):
    return f"last {r['last']:.1f} s, {r['copies']:.3f} copies, {', '.join(f'{v} {k}' for k, v in sorted(r['calls'].items()))}"


# ---------------------------------------------------------------- scenarios: each returns what to print, or raises Failed

def one_copy(f):
    """cold nodes, all at once: one copy, one resolve, one listing"""
    f.serve()
    f.start()
    r = f.fetch(120)
    f.verify()
    check(r["copies"] <= 1.01, f"{r['copies']:.3f} copies, want at most 1.01")
    check(r["last"] <= PROMPT, f"last node after {r['last']:.1f} s, want at most {PROMPT} s")
    check(all(r["calls"].get(k, 0) == 1 for k in ("info", "tree")), f"calls {r['calls']}, want one resolve and one listing")
    return told(r)


# R04: agents and fetches start in the same second, in network namespaces.
# The Hub sends one copy and answers one question about the branch and one about the files.
def boot_storm(f):
    """agents and fetches start in the same second: still one copy"""
    f.serve()
    for n in f.nodes:
        n.agent()
    for n in f.nodes:
        fleet.wait(f"{n.name} answers", 30, lambda: os.path.exists(n.socket))
    r = f.fetch(120)
    f.verify()
    check(r["copies"] <= 1.01, f"{r['copies']:.3f} copies, want at most 1.01")
    check(all(r["calls"].get(k, 0) == 1 for k in ("info", "tree")), f"calls {r['calls']}, want one resolve and one listing")
    check(r["last"] <= PROMPT, f"last node after {r['last']:.1f} s, want at most {PROMPT} s: nobody may wait for --join-timeout once others are in view")
    return told(r)


def again(f):
    """a second fetch of what is there asks the Hub for no byte"""
    f.serve()
    f.start()
    f.fetch(120)
    r = f.fetch(60)
    f.verify()
    check(r["hub_body"] == 0, f"{r['hub_body']} bytes from the Hub, want none")
    return told(r)


def latecomer(f):
    """the Hub is gone when the last node asks: it gets everything from the others"""
    f.serve()
    f.start()
    f.fetch(120, nodes=f.nodes[:-1])
    f.where.blackhole("hub")
    ref = f"{fleet.REPO}@{os.path.basename(f.nodes[0].path)}"
    r = f.fetch(120, nodes=f.nodes[-1:], ref=ref)
    f.verify()
    return told(r)


def after(f, share, action):
    """A hook for Fleet.fetch: acts once, when the Hub has sent that share of the model."""
    def hook(_elapsed, stats):
        if not hook.done and stats["body_bytes"] >= share * f.size:
            hook.done = True
            action(max(f.live(), key=lambda n: stats["clients"].get(n.ip, 0)))
    hook.done = False
    return hook


def faulty(f, action, most, timeout=180):
    f.serve()
    f.start()
    hook = after(f, 0.4, action)
    r = f.fetch(timeout, hook)
    check(hook.done, "over before the fault")
    f.verify(f.live())
    check(r["copies"] <= most, f"{r['copies']:.3f} copies, want at most {most}")
    return told(r)


# P03: the member that fetches most is killed with -9.
# Real processes, real sockets: the others finish, and the Hub sends 1.10 copies at most.
def p03_killed(f):
    """kill -9 of the node that fetches most: the others finish"""
    return faulty(f, lambda n: n.kill(), 1.1)


# P05: the link of the member that fetches most goes silent.
# nft drops everything, the Hub's answers too, and nothing is reset: the others finish without it.
def p05_silent(f):
    """that node's link goes silent (nft drop): the others finish"""
    def cut(n):
        n.down = True
        f.where.blackhole(n.name)
    return faulty(f, cut, 1.1)


# P04: the member that fetches most is stopped, not dead.
# SIGSTOP: its kernel goes on acknowledging. The others take over by progress and finish with 1.10 copies at most; it
# finishes after SIGCONT.
def p04_stopped(f):
    """SIGSTOP of that node: the others finish, and it too after SIGCONT"""
    paused = []

    def pause(n):
        n.down = True
        n.pause()
        paused.append(n)
    said = faulty(f, pause, 1.1)
    node = paused[0]
    node.resume()
    fleet.wait(f"{node.name} finishes after SIGCONT", 90, node.poll)
    node.done = 0.0
    f.verify([node])
    return said


# S22: kill -9 of the agent that fetches most, at 40 %, and it is started again.
# It goes on from what its journal names, and does not start over.
def restarted(f):
    """kill -9 at 40 %, started again: it finishes and does not start over"""
    node = f.nodes[0]
    begin = f.where.counters()[node.name]["recv"]

    def restart(_):
        node.kill()
        node.agent()
        fleet.wait(f"{node.name} answers again", 30, node.status)
        node.fetch()
    said = faulty(f, restart, 1.6)
    got = f.where.counters()[node.name]["recv"] - begin
    return f"{said}; it received {got / f.size:.2f} × the model"


# S01: a body of the real Hub server stops with its socket open.
# The range is replaced within 30 s and all nodes finish.
def hub_stalls(f):
    """a Hub body stops with the socket open: replaced within 30 s"""
    f.serve()
    f.start()
    f.hub.stall(f"model-00002-of-0000{SHARDS}.safetensors", 4 * MB)
    r = f.fetch(150)
    f.verify()
    check(any(q["stalled"] for q in f.hub.requests()), "nobody met the stall")
    check(r["last"] <= 30 + 15, f"last node after {r['last']:.1f} s")
    return told(r)


# S18: a NAT forgets the idle connections to the Hub without a word (nft drop of their ports).
# The next request is given up after 15 s and sent on a new connection.
def forgotten(f):
    """idle connections to the Hub vanish silently: the next fetch gets through within half a minute"""
    f.source += ["-model", f"demo/again={f.model}"]
    f.serve()
    node = f.nodes[0]
    f.start(nodes=[node])
    f.fetch(120, nodes=[node])
    ports = node.ports_to(f.hub.ip)
    check(ports, "no connection to the Hub was kept")
    f.where.forget(node.name, ports)
    r = f.fetch(120, nodes=[node], ref="demo/again")
    f.verify([node])
    check(10 <= r["last"] <= 30, f"done after {r['last']:.1f} s, want 15 and a little (less: no idle connection was used)")
    return f"{len(ports)} connections forgotten; {told(r)}"


# P06: a stranger, with another swarm key.
# It gets no member and no byte, and has to fetch everything from the Hub itself.
def p06_stranger(f):
    """an agent with another swarm key gets no member and no byte from the others"""
    f.serve()
    f.start(nodes=f.nodes[:-1])
    f.fetch(120, nodes=f.nodes[:-1])
    theirs, f.key = f.key, f"{lab.RUN}/other.key"
    f.keygen()
    last = f.nodes[-1]
    last.agent("--join-timeout", "5s")
    fleet.wait(f"{last.name} answers", 30, last.status)
    f.fetch(120, nodes=[last])
    f.key = theirs
    check(last.members() <= 1 and all(n.members() == NODES - 1 for n in f.nodes[:-1]), "the stranger was let in")
    sent = f.hub.stats()["clients"].get(last.ip, 0)
    check(sent >= f.size, f"it had {sent} bytes from the Hub: the rest came from members")
    return "refused; it fetched all from the Hub"


SCENARIOS = {s.__name__: s for s in (one_copy, boot_storm, again, latecomer, p03_killed, p05_silent, p04_stopped, restarted, hub_stalls, forgotten, p06_stranger)}


# ---------------------------------------------------------------- running them

def inner(name):
    top = f"{OUT}/model"
    f = fleet.Fleet(f"{ROOT}/.cache/bin", f"{top}/model", f"{top}/SHA256SUMS", f"{OUT}/logs/{name}")
    try:
        said, ok = SCENARIOS[name](f), True
    except fleet.Failed as e:
        said, ok = str(e), False
    finally:
        stubborn = f.close()
    if ok and stubborn:
        said, ok = f"{said}; not gone 10 s after SIGTERM: {', '.join(stubborn)}", False
    with open(f"{OUT}/{name}.json", "w") as out:
        json.dump([ok, said], out)


def play(name):
    """(passed, what it says) of a scenario in a lab of its own."""
    result = f"{OUT}/{name}.json"
    if os.path.exists(result):
        os.remove(result)
    argv = [sys.executable, f"{HERE}/lab.py", "--nodes", str(NODES), "--hub-up", "100mbit", "--node-up", "400mbit", "--node-down", "400mbit",
            "--", sys.executable, __file__, "--inner", name]
    p = subprocess.Popen(argv, start_new_session=True)
    try:
        p.wait(LIMIT)
        with open(result) as f:
            return json.load(f)
    except subprocess.TimeoutExpired:
        return False, f"not over after {LIMIT} s"
    except (OSError, ValueError):
        return False, f"the lab ended with {p.returncode}"
    finally:
        if p.poll() is None:
            p.kill()                                        # the lab's namespaces go with it
            p.wait()


def model():
    top = f"{OUT}/model"
    if not os.path.exists(f"{top}/SHA256SUMS"):
        subprocess.run([f"{ROOT}/.cache/bin/mkmodel", "-size", f"{SIZE}MiB", "-shards", str(SHARDS), "-sums", f"{OUT}/sums", f"{top}/model"], check=True)
        os.replace(f"{OUT}/sums", f"{top}/SHA256SUMS")


def selftest():
    """The lab's own check; its lines are printed as they come."""
    p = subprocess.run([sys.executable, f"{HERE}/selftest.py"], stdout=subprocess.PIPE, text=True)
    lines = p.stdout.splitlines()
    print("\n".join(l for l in lines if not l.startswith("ok")))
    return p.returncode == 0, lines[-1] if lines else "it said nothing"


def main():
    if sys.argv[1:2] == ["--inner"]:
        return inner(sys.argv[2])
    if sys.argv[1:2] == ["--list"]:
        return print("\n".join(["selftest     the lab itself: caps, counters, faults, clean-up"] + [f"{n:<12} {s.__doc__}" for n, s in SCENARIOS.items()]))
    names = sys.argv[1:] or ["selftest", *SCENARIOS]
    if unknown := [n for n in names if n not in SCENARIOS and n != "selftest"]:
        sys.exit(f"acceptance.py: no scenario {', '.join(unknown)}; --list names them")
    os.makedirs(OUT, exist_ok=True)
    with open(f"{OUT}/lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("acceptance.py: another one is running in this folder")
        model()
        passed = [report(n) for n in names]
    print(f"{sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


def report(name):
    start = time.monotonic()
    ok, said = selftest() if name == "selftest" else play(name)
    print(f"{'ok     ' if ok else 'FAILED '} {name:<12} {time.monotonic() - start:5.0f} s  {said}", flush=True)
    return ok


if __name__ == "__main__":
    sys.exit(main())
