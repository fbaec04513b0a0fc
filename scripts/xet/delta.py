"""delta.py BIN WORK [MIB] - what a file costs of which most is here: in the store's bytes, and between members. Started by run.

A model is uploaded by the official client (hf-xet), then a revision of which 5 % of the bytes are others, all over, with some inserted near its
beginning, then a fine-tune of that in another repository by another name. Three agents fetch each at once. Bytes are those that the store counts and
the members' own counters."""
import hashlib
import json
import os
import random
import sys
import time
import urllib.request

import hf_xet

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../clients")
import procs                                                # noqa: E402 (its folder must be on the path first)

BIN, WORK = sys.argv[1:3]
SIZE = int((sys.argv[3:] or ["1024"])[0]) << 20
AGENTS, EDITS, CHANGED, MOST = 3, 30, 0.05, 0.08
results = []


def check(what, ok, detail=""):
    results.append(bool(ok))
    print(f"{'ok     ' if ok else 'FAILED '} {what}{f'  [{detail}]' if detail else ''}", flush=True)


def make(path):
    r = random.Random(1)
    with open(path, "wb") as f:
        for _ in range(SIZE >> 20):
            f.write(r.randbytes(1 << 20))


def tuned(old, new, seed):
    """CHANGED of the bytes in EDITS places all over, and a few hundred inserted where a tenth is over."""
    r, left = random.Random(seed), SIZE // 10
    with open(old, "rb") as src, open(new, "wb") as out:
        out.write(src.read(left))
        out.write(r.randbytes(777))
        while block := src.read(1 << 20):
            out.write(block)
        each = int(SIZE * CHANGED / EDITS)
        for i in range(EDITS):
            out.seek(SIZE * i // EDITS + r.randrange(SIZE // EDITS - each))
            out.write(r.randbytes(each))


def upload(url, path):
    access = ("xet.upload", int(time.time()) + 3600)
    began = time.monotonic()
    hf_xet.upload_files([path], url, access, lambda: access, lambda *_: None, "model")
    return time.monotonic() - began


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").digest()


def told(agent, *argv):
    p = procs.subprocess.run([agent.binary, *argv, "--socket", agent.socket, "--format", "json"], env=agent.env, capture_output=True, text=True, timeout=30)
    return json.loads(p.stdout)


class Counters:
    """What was sent since it was made: by the store, by plain HTTP, and to each member by the others."""

    def __init__(self, store, hub, agents):
        self.store, self.hub, self.agents = store, hub, agents
        self.before = self.now()

    def now(self):
        with urllib.request.urlopen(f"{self.store}/-/sent", timeout=10) as answer:
            sent = json.load(answer)
        plain = self.hub.stats()["body_bytes"]
        members = [sum(p.get("in", 0) for p in told(a, "peers")["peers"]) for a in self.agents]
        return [sent["bytes"], plain, *members], sent["reconstructions"]

    def since(self):
        (now, asked), (before, had) = self.now(), self.before
        return [a - b for a, b in zip(now, before)], asked - had


def fetch(what, ref, source, store, hub, agents, most):
    counters, began = Counters(store, hub, agents), time.monotonic()
    waits = [a.fetch(ref, limit=600) for a in agents]
    ends = [w() for w in waits]
    took = time.monotonic() - began
    check(f"{what}: every agent has it", all(code == 0 for code, *_ in ends), f"{took:.1f} s; " + "; ".join(said[-150:] for *_, said in ends if said))
    good = [sha256(f"{path}/{name}") == sha256(f"{source}/{name}") for _, path, _ in ends for name in os.listdir(source)]
    check(f"{what}: its bytes are right", all(good))
    (upstream, plain, *members), asked = counters.since()
    share = [100 * n / SIZE for n in (upstream + plain, *members)]
    check(f"{what}: upstream", share[0] <= 100 * most, f"{share[0]:.2f} % of its size, {plain} bytes of it by plain HTTP; {asked} reconstructions")
    check(f"{what}: between members", max(share[1:]) <= 100 * most, "each got " + ", ".join(f"{s:.2f} %" for s in share[1:]))


def main():
    folders = {n: f"{WORK}/src/{n}" for n in ("first", "second", "tuned")}
    for d in folders.values():
        os.makedirs(d)
    files = [f"{folders['first']}/model.safetensors", f"{folders['second']}/model.safetensors", f"{folders['tuned']}/tuned.safetensors"]
    make(files[0])
    tuned(files[0], files[1], 2)
    tuned(files[1], files[2], 3)
    server = procs.Process("xetserver", [f"{BIN}/xetserver", f"{WORK}/store", "xet."], procs.clean_env(), f"{WORK}/store.url")
    store = procs.wait("the store's address", 10, lambda: open(server.log).read().strip())
    print("hf-xet uploaded in " + ", ".join(f"{upload(store, f):.1f}" for f in files) + " s", flush=True)
    repos = {"acme/base@main": folders["first"], "acme/base@next": folders["second"], "acme/fine-tune@main": folders["tuned"]}
    with procs.Hub(BIN, WORK, repos, patience=300, flags=("-cas", store)) as hub:
        key, agents = procs.keygen(BIN, f"{WORK}/key"), []
        for i in range(AGENTS):
            agents.append(procs.Agent(BIN, f"{WORK}/n{i}", hub, key, join=agents[0].gossip if agents else None))
        procs.wait("all members see each other", 30, lambda: all(a.members() == AGENTS - 1 for a in agents))
        every = (store, hub, agents)
        fetch("the model, cold", "acme/base", folders["first"], *every, 1.1)  # this store gives whole terms
        fetch("its next revision", "acme/base@next", folders["second"], *every, MOST)
        fetch("a fine-tune in another repository", "acme/fine-tune", folders["tuned"], *every, MOST)


def session(run, agents):
    started = time.monotonic()
    try:
        run()
    except procs.Failed as e:
        check("the run", False, e)
    finally:
        procs.stop_all()
    print(f"{time.monotonic() - started:.0f} s, {agents} agents, {SIZE >> 20} MiB")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    session(main, AGENTS)
