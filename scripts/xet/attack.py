"""attack.py BIN WORK [MIB] - what is copied out of older files, under attack: started by run, with the helpers of delta.py.

A flipped byte in the older file, kill -9 in the middle of copying, the older file deleted or `rm`ed meanwhile, two jobs at once. Each time the new
files must be right, and no more may move than what is not sound."""
import glob
import os
import signal
import subprocess
import sys
import threading
import time

import delta
from delta import BIN, SIZE, WORK, Counters, check, procs, sha256, told

PIECE = 4 << 20
EDITED = delta.MOST * SIZE  # what a revision may cost when all is well


def job(agent, ref):
    """The last job of an agent on a reference, or nothing."""
    return next((j for j in told(agent, "ps")["jobs"] if j["ref"].startswith(ref)), None)


def halfway(agent, ref):
    """Waits until a quarter of the file is copied, and returns how much."""
    def look():
        j = job(agent, ref)
        return j if j and (j["here"] > SIZE // 4 or j["status"] == "done") else None
    return procs.wait(f"{ref} is being copied", 60, look)


def right(what, end, source, moved, most):
    code, path, said = end
    check(f"{what}: fetched", code == 0, said[-300:])
    check(f"{what}: its bytes are right", code == 0 and all(sha256(f"{path}/{n}") == sha256(f"{source}/{n}") for n in os.listdir(source)))
    check(f"{what}: what moved", moved <= most, f"{moved / (1 << 20):.1f} MiB, at most {most / (1 << 20):.1f}")


class Attack:
    def __init__(self, store, hub, agent, sources):
        self.store, self.hub, self.agent, self.sources = store, hub, agent, sources
        self.next = 0

    def ref(self):
        self.next += 1
        return f"acme/v{self.next}", self.sources[self.next - 1]

    def blob(self):
        return max(glob.glob(f"{self.agent.home}/hub/models--acme--base/blobs/*"), key=os.path.getsize)

    def run(self, what, most, before=lambda: None, during=None, fetches=1):
        ref, source = self.ref()
        before()
        counters = Counters(self.store, self.hub, [self.agent])
        flags = [(), ("--include", "*.safetensors")]
        waits = [self.agent.fetch(ref, *flags[i], limit=300) for i in range(fetches)]
        if during:
            j = halfway(self.agent, ref)
            check(f"{what}: it was in the middle", j["status"] != "done", f"{j['here'] >> 20} MiB of {SIZE >> 20}")
            waits = during(ref) or waits
        ends = [w() for w in waits]
        (upstream, plain, *_), _ = counters.since()
        for i, end in enumerate(ends):
            right(f"{what}{', job ' + str(i + 1) if fetches > 1 else ''}", end, source, upstream + plain, most)

    def flip(self):
        path = self.blob()
        was = os.stat(path)
        with open(path, "r+b") as f:
            f.seek(SIZE // 2)
            b = f.read(1)
            f.seek(SIZE // 2)
            f.write(bytes([b[0] ^ 1]))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # as a disk does it

    def kill(self, ref):
        a = self.agent
        a.p.send_signal(signal.SIGKILL)
        a.p.wait(10)
        self.agent = procs.Agent(BIN, a.work, self.hub, f"{WORK}/key", home=a.home)
        return [self.agent.fetch(ref, limit=300)]

    def delete(self, _):
        os.unlink(self.blob())

    def remove(self, _):
        p = subprocess.run([self.agent.binary, "rm", "acme/base", "--yes", "--socket", self.agent.socket], env=self.agent.env, capture_output=True, text=True, timeout=60)
        check("the older snapshot was removed meanwhile", p.returncode == 0, p.stderr[-200:])


def main():
    os.makedirs(f"{WORK}/src/base")
    base = f"{WORK}/src/base/model.safetensors"
    delta.make(base)
    files, sources = [base], []
    for i in range(5):
        sources.append(f"{WORK}/src/v{i + 1}")
        os.makedirs(sources[-1])
        files.append(f"{sources[-1]}/v.safetensors")
        delta.tuned(base, files[-1], 10 + i)
    server = procs.Process("xetserver", [f"{BIN}/xetserver", f"{WORK}/store", "xet."], procs.clean_env(), f"{WORK}/store.url")
    store = procs.wait("the store's address", 10, lambda: open(server.log).read().strip())
    for f in files:
        delta.upload(store, f)
    repos = {"acme/base": f"{WORK}/src/base"} | {f"acme/v{i + 1}": s for i, s in enumerate(sources)}
    with procs.Hub(BIN, WORK, repos, patience=300, flags=("-cas", store)) as hub:
        procs.keygen(BIN, f"{WORK}/key")
        agent = procs.Agent(BIN, f"{WORK}/n0", hub, f"{WORK}/key")
        attack = Attack(store, hub, agent, sources)
        attack.agent.fetch("acme/base", limit=300)()
        time.sleep(1)  # what it is made of is learned behind
        attack.run("two jobs at once", EDITED, fetches=2)
        attack.run("a flipped byte", EDITED + 2 * PIECE, before=attack.flip)
        attack.run("kill -9 in the middle", 2 * EDITED, during=attack.kill)
        attack.run("the older snapshot is removed meanwhile", 1.15 * SIZE, during=attack.remove)
        attack.agent.fetch("acme/base", limit=300)()
        attack.run("the older file is deleted meanwhile", 1.15 * SIZE, during=attack.delete)


delta.session(main, 1)
