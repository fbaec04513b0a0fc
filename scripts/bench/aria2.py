"""aria2.py - the same distribution by BitTorrent (aria2 1.36), to compare with on the same machine in the same run.

Runs inside a lab. The torrent and the tracker are made here, so that Debian's aria2 is all that it takes. Settings are
those that serve aria2 best on a LAN: 1 MiB pieces, no encryption, any number of peers, no DHT, no local discovery."""
import hashlib
import http.server
import os
import subprocess
import sys
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE) + "/lab")
import fleet                                                # noqa: E402 (the lab's folder must be on the path first)

PIECE, PORT, TRACKER = 1 << 20, 6881, 6969
FLAGS = ["-q", f"--listen-port={PORT}", "--seed-ratio=0", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--bt-max-peers=0",
         "--bt-request-peer-speed-limit=1000M", "--bt-min-crypto-level=plain", "--disable-ipv6=true", "--file-allocation=none", "--disk-cache=64M"]


def bencode(v):
    if isinstance(v, int):
        return b"i%de" % v
    if isinstance(v, str):
        v = v.encode()
    if isinstance(v, bytes):
        return b"%d:%s" % (len(v), v)
    if isinstance(v, list):
        return b"l" + b"".join(map(bencode, v)) + b"e"
    return b"d" + b"".join(bencode(k) + bencode(v[k]) for k in sorted(v)) + b"e"


def make_torrent(model, files, announce, out):
    """A version 1 torrent named `model` of the files, pieces across file borders as the format wants."""
    pieces, rest = [], b""
    for name in files:
        with open(f"{model}/{name}", "rb") as f:
            while block := f.read(PIECE - len(rest)):
                rest += block
                if len(rest) == PIECE:
                    pieces.append(hashlib.sha1(rest).digest())
                    rest = b""
    if rest:
        pieces.append(hashlib.sha1(rest).digest())
    listing = [{"length": os.path.getsize(f"{model}/{n}"), "path": n.split("/")} for n in files]
    info = {"files": listing, "name": "model", "piece length": PIECE, "pieces": b"".join(pieces)}
    with open(out, "wb") as f:
        f.write(bencode({"announce": announce, "info": info}))


class Tracker(http.server.BaseHTTPRequestHandler):
    """Tells everyone of everyone who ever announced: swarms here live for seconds."""
    peers = set()

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        me = (self.client_address[0], int(query["port"][0]))
        self.peers.add(me)
        others = [p for p in self.peers if p != me]
        body = bencode({"interval": 5, "peers": b"".join(bytes(map(int, ip.split("."))) + port.to_bytes(2, "big") for ip, port in others)})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def seeder(swarm, torrent):
    """Starts tracker and seed on the hub; returns when the seed has checked its files and announced itself."""
    hub, ready = swarm.hub, f"{swarm.hub.dir}/ready"
    hub.start([sys.executable, os.path.abspath(__file__), "tracker", hub.ip])
    shown = f"{hub.dir}/seed"
    os.makedirs(shown, exist_ok=True)
    os.symlink(swarm.model, f"{shown}/model")
    script(f"{hub.dir}/ready.sh", ready)
    hub.start(["aria2c", *FLAGS, "-d", shown, "-V", f"--bt-external-ip={hub.ip}", f"--on-bt-download-complete={hub.dir}/ready.sh", torrent])
    fleet.wait("aria2 seeds", 120, lambda: os.path.exists(ready))


def script(path, flag):
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\n: >'{flag}'\n")
    os.chmod(path, 0o755)


def distribute(swarm, timeout):
    """The distribution: {last, copies, cpu, ...} as fleet.Fleet.fetch returns it, as far as it applies."""
    torrent = f"{fleet.lab.RUN}/model.torrent"
    make_torrent(swarm.model, [p for p, _ in swarm.sums], f"http://{swarm.hub.ip}:{TRACKER}/announce", torrent)
    seeder(swarm, torrent)
    before, used, start, done = swarm.where.counters(), [n.usage()[0] for n in swarm.nodes], time.monotonic(), {}
    for n in swarm.nodes:
        script(f"{n.dir}/done.sh", f"{n.dir}/done")
        n.start(["aria2c", *FLAGS, "-d", n.dir, f"--bt-external-ip={n.ip}", f"--on-bt-download-complete={n.dir}/done.sh", torrent])
    while len(done) < len(swarm.nodes):
        for n in swarm.nodes:
            n.reap()
            if n.name not in done and os.path.exists(f"{n.dir}/done"):
                done[n.name] = round(time.monotonic() - start, 3)
        if time.monotonic() - start > timeout:
            raise fleet.Failed(f"aria2: {len(done)} of {len(swarm.nodes)} nodes done within {timeout} s")
        time.sleep(0.02)
    sent = swarm.where.counters()["hub"]["sent"] - before["hub"]["sent"]
    cpu = sum(n.usage()[0] for n in swarm.nodes) - sum(used)
    return {"last": max(done.values()), "done": done, "copies_wire": sent / swarm.size, "cpu_agents": cpu, "size": swarm.size, "nodes": len(done)}


def version():
    try:
        return subprocess.run(["aria2c", "--version"], capture_output=True, text=True).stdout.split("\n", 1)[0]
    except OSError:
        return ""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((sys.argv[2], TRACKER), Tracker).serve_forever()
