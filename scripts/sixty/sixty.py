"""sixty.py BIN WORK - one file of 60 GB, the Hub, two agents and the real huggingface_hub. Started by run, with the Python of .cache/venv.

WORK is a folder with room for two copies. Prints a line for each step, then 'N passed, N failed'."""
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../clients")
import procs                                                # noqa: E402 (its folder must be on the path first)

BIN, WORK = sys.argv[1:]
SIZE = 60_000_000_000
MIB = 1 << 20
PIECE = 16 * MIB                                            # of a blob over 32 GiB
REF, FILE = "acme/sixty", "model.safetensors"
MEMORY = 150 * MIB                                          # what an agent may have, whatever the model
results = []


def check(what, ok, detail=""):
    results.append(bool(ok))
    print(f"{'ok     ' if ok else 'FAILED '} {what}{f'  [{detail}]' if detail else ''}", flush=True)


def make(path):
    """A sparse file of SIZE bytes: a MiB that is not zero at both ends, on every 64th border of a piece, and where 2^31 and 2^32 are."""
    r = random.Random(60)
    with open(path, "wb") as f:
        f.truncate(SIZE)
        borders = range(PIECE, SIZE, 64 * PIECE)
        for at in (0, 2**31 - MIB // 2, 2**32 - MIB // 2, *(b - MIB // 2 for b in borders), SIZE - MIB):
            f.seek(at)
            f.write(r.randbytes(MIB))


class Memory(threading.Thread):
    """The most anonymous memory that a process has, sampled four times a second."""

    def __init__(self, agent):
        super().__init__(daemon=True)
        self.agent, self.most, self.done = agent, 0, threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.25):
            try:
                with open(f"/proc/{self.agent.p.pid}/status") as f:
                    self.most = max(self.most, *(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon")))
            except (OSError, TypeError):
                return

    def check(self):
        self.done.set()
        self.join()
        check(f"memory of agent {self.agent.name}", 0 < self.most <= MEMORY, f"at most {self.most / MIB:.0f} MiB of {MEMORY // MIB}")


def client(agent, **env):
    """Runs the real client, whose Hub is the agent; returns (exit code, last line of stdout or of stderr)."""
    env = procs.clean_env(HF_HOME=f"{WORK}/client", HOME=WORK, HF_ENDPOINT=agent.gateway, HF_HUB_DISABLE_PROGRESS_BARS="1", NO_PROXY="127.0.0.1", **env)
    p = subprocess.run([sys.executable, "-W", "ignore", "-c", f"import huggingface_hub as hf; print(hf.snapshot_download('{REF}'))"],
                       env=env, capture_output=True, text=True, timeout=2400)
    return p.returncode, ((p.stderr if p.returncode else p.stdout).strip().splitlines() or [""])[-1]


def complete(agent):
    p = subprocess.run([agent.binary, "show", REF, "--socket", agent.socket, "--format", "json"], env=agent.env, capture_output=True, text=True, timeout=30)
    return p.returncode == 0 and json.loads(p.stdout)["complete"]


def sha256(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# X08: a file over 50 GB, for real, to a client with hf_xet.
# Nobody has the file. The client takes it from the agent as Xet, since it does not GET one of that size, while the agent fetches it; and it is right.
def as_xet(hub, one, digest):
    began = time.monotonic()
    code, said = client(one)
    check("a client with hf_xet gets it from the first agent", code == 0, f"{time.monotonic() - began:.0f} s: {said[:200]}")
    copies(hub)
    check("its SHA-256 is the file's", code == 0 and sha256(f"{said}/{FILE}") == digest)
    shutil.rmtree(f"{WORK}/client")


# G20: a file over 50 GB, for real, to a client without.
# The first call of the client is refused by the client itself, before a GET; the agent brings the file meanwhile, and the next call finds it in the cache.
def through_the_cache(hub, two, digest):
    here = {"HF_HUB_CACHE": f"{two.home}/hub", "HF_HUB_DISABLE_XET": "1"}
    code, said = client(two, **here)
    check("a client without it refuses to GET 60 GB", code and "too large" in said, said[:200])
    began = time.monotonic()
    procs.wait("the second agent has the file", 2400, lambda: complete(two))
    check("the second agent has taken it from the first meanwhile", True, f"{time.monotonic() - began:.0f} s")
    copies(hub)
    for state, more in (("", {}), (", offline", {"HF_HUB_OFFLINE": "1"})):
        code, said = client(two, **here, **more)
        check(f"the client finds it in the cache{state}", code == 0 and os.path.getsize(f"{said}/{FILE}") == SIZE, said)
    check("its SHA-256 is the file's", code == 0 and sha256(f"{said}/{FILE}") == digest)


def copies(hub):
    stats = hub.stats()
    check("one copy upstream", stats["body_bytes"] == stats["model_bytes"], f"{stats['body_bytes']} bytes of {stats['model_bytes']}")


def main():
    os.makedirs(f"{WORK}/src")
    make(f"{WORK}/src/{FILE}")
    began = time.monotonic()
    with procs.Hub(BIN, WORK, {REF: f"{WORK}/src"}, patience=900, flags=["-xet"]) as hub:
        row = hub.ask(f"/api/models/{REF}/tree/main", base=hub.url)[0]
        print(f"{row['path']}: {row['size']} bytes, {os.stat(f'{WORK}/src/{FILE}').st_blocks * 512 / MIB:.0f} MiB on the disk; its hashes took {time.monotonic() - began:.0f} s", flush=True)
        key, settings = procs.keygen(BIN, f"{WORK}/key"), {"P2PAGENT_GATEWAY_XET": "huge", "P2PAGENT_XET": "off"}     # plain HTTP upstream: there copies are counted
        with procs.Agent(BIN, f"{WORK}/one", hub, key, gateway=True, **settings) as one, procs.Agent(BIN, f"{WORK}/two", hub, key, join=one.gossip, gateway=True, **settings) as two:
            procs.wait("two members see each other", 30, lambda: one.members() == two.members() == 1)
            watched = [Memory(one), Memory(two)]
            as_xet(hub, one, row["lfs"]["oid"])
            through_the_cache(hub, two, row["lfs"]["oid"])
            for m in watched:
                m.check()


started = time.monotonic()
try:
    main()
except procs.Failed as e:
    check("the run", False, e)
finally:
    procs.stop_all()
print(f"{time.monotonic() - started:.0f} s with huggingface_hub {__import__('huggingface_hub').__version__}")
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if all(results) else 1)
