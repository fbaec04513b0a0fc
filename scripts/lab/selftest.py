#!/usr/bin/env python3
"""selftest.py - checks that the lab does what lab.py says: caps, counters, faults, racks, isolation, clean-up.

Takes about 40 s; ends with 'N passed, N failed'."""
import os
import select
import signal
import socket
import subprocess
import sys
import time

import lab

HERE = os.path.dirname(os.path.abspath(__file__))
ME = os.path.abspath(__file__)
results = []


def check(what, ok, detail=""):
    results.append(bool(ok))
    print(("ok      " if ok else "FAILED  ") + what + (f"  [{detail}]" if detail != "" else ""), flush=True)


# ---------------------------------------------------------------- small peers that run on hosts

def role_sink(ip, port):
    """Accepts for ever; throws away what it gets."""
    server = socket.create_server((ip, int(port)), backlog=64)
    server_list = [server]
    print("ready", flush=True)
    while True:
        for s in select.select(server_list, [], [])[0]:
            if s is server:
                server_list.append(s.accept()[0])
            elif not s.recv(1 << 20):
                server_list.remove(s)
                s.close()


def role_source(ip, port, seconds, limit="0"):
    """Sends for some seconds or up to a limit of bytes; prints Mbit/s of what TCP took."""
    s = socket.create_connection((ip, int(port)))
    block, sent, limit = b"x" * (1 << 18), 0, int(limit)
    start = time.monotonic()
    while time.monotonic() - start < float(seconds) and (not limit or sent < limit):
        sent += s.send(block[:min(len(block), limit - sent)] if limit else block)
    s.shutdown(socket.SHUT_WR)
    s.recv(1)                                           # until the other end has it all
    print(8 * sent / (time.monotonic() - start) / 1e6)


def role_ticker(ip, port):
    """Sends a byte every 50 ms and says when the socket reports an error."""
    s = socket.create_connection((ip, int(port)))
    try:
        while True:
            s.send(b"x")
            time.sleep(0.05)
    except OSError as e:
        print(type(e).__name__)


def role_connect(ip, port, timeout):
    try:
        socket.create_connection((ip, int(port)), float(timeout)).close()
        print("connected")
    except OSError as e:
        print(type(e).__name__)


def role_udp_sink(ip, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind((ip, int(port)))
    print("ready", flush=True)
    s.settimeout(2)
    got = 0
    try:
        while True:
            s.recv(2000)
            got += 1
    except TimeoutError:
        print(got)


def role_udp_source(ip, port, count):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(int(count)):
        s.sendto(b"x" * 500, (ip, int(port)))
        if i % 50 == 49:
            time.sleep(0.01)


# ---------------------------------------------------------------- the checks, inside a lab

class Bed:
    def __init__(self):
        self.lab = lab.Lab()

    def start(self, host, *args):
        return subprocess.Popen(self.lab.argv(host, [sys.executable, ME, "--role", *map(str, args)]),
                                stdout=subprocess.PIPE, text=True)

    def run(self, host, *args):
        return self.start(host, *args).communicate()[0].strip()

    def sink(self, host, port=9000, role="udp_sink"):
        p = self.start(host, role, self.ip(host), port)
        assert p.stdout.readline().strip() == "ready"
        return p

    def ip(self, host):
        return self.lab.hosts[host]["ip"]

    def got(self, link):
        return self.lab.counters()[link]["recv"]


def near(value, want, tolerance):
    return abs(value - want) <= tolerance * want


def inside():
    bed = Bed()
    o = bed.lab.state["options"]
    cap = {k: lab.bits(o[k]) / 1e6 * 0.956 for k in ("hub_up", "hub_down", "node_up", "trunk")}     # less headers
    hosts = bed.lab.nodes + ["hub"]
    for h in hosts:
        bed.sink(h, role="sink")

    rate = float(bed.run("hub", "source", bed.ip("node1"), 9000, 2))
    check("hub to one node runs at the hub's cap", near(rate, cap["hub_up"], 0.07), f"{rate:.0f} of {cap['hub_up']:.0f} Mbit/s")
    rates = [bed.start("hub", "source", bed.ip(n), 9000, 2) for n in ("node1", "node2")]
    rate = sum(float(p.communicate()[0]) for p in rates)
    check("hub to two nodes shares the hub's cap", near(rate, cap["hub_up"], 0.1), f"{rate:.0f} Mbit/s")
    rate = float(bed.run("node1", "source", bed.ip("node2"), 9000, 2))
    check("node to node in a rack runs at the node's cap", near(rate, cap["node_up"], 0.1), f"{rate:.0f} of {cap['node_up']:.0f} Mbit/s")
    rate = float(bed.run("node1", "source", bed.ip("hub"), 9000, 2))
    check("node to hub runs at the hub's downward cap", near(rate, cap["hub_down"], 0.1), f"{rate:.0f} of {cap['hub_down']:.0f} Mbit/s")
    far = next(n for n in bed.lab.nodes if bed.lab.hosts[n]["rack"] == 2)
    before = bed.lab.counters()
    rate = float(bed.run("node1", "source", bed.ip(far), 9000, 2))
    moved = bed.got("trunk2") - before["trunk2"]["recv"]
    check("rack to rack runs at the trunk's cap", near(rate, cap["trunk"], 0.1), f"{rate:.0f} of {cap['trunk']:.0f} Mbit/s")
    check("the trunk's counter sees that traffic", near(moved, rate * 2e6 / 8, 0.15), f"{moved >> 20} MiB")

    before, size = bed.lab.counters(), 20_000_000
    bed.run("hub", "source", bed.ip("node2"), 9000, 60, size)
    after = bed.lab.counters()
    up, down = after["hub"]["sent"] - before["hub"]["sent"], after["node2"]["recv"] - before["node2"]["recv"]
    check("both ends' counters agree with what was sent", all(size <= x <= 1.01 * size for x in (up, down)), f"{up} and {down} for {size}")
    check("a link not involved counts nothing much", after["node1"]["recv"] - before["node1"]["recv"] < 2000)

    bed.lab.rate("hub", up="50mbit")
    rate = float(bed.run("hub", "source", bed.ip("node1"), 9000, 2))
    check("a cap can be changed while it runs", near(rate, 50 * 0.956, 0.1), f"{rate:.0f} Mbit/s")
    bed.lab.rate("hub", up=o["hub_up"])

    for fault, undo_note in (("cut", "carrier"), ("blackhole", "silence")):
        tick = bed.start("node1", "ticker", bed.ip("node2"), 9000)
        time.sleep(0.5)
        getattr(bed.lab, fault)("node1")
        time.sleep(0.2)
        at = bed.got("node2")
        time.sleep(1.5)
        quiet = bed.got("node2") - at
        check(f"{fault}: an open connection goes quiet with no error ({undo_note})", quiet < 500 and tick.poll() is None, f"{quiet} bytes")
        said = bed.run("hub", "connect", bed.ip("node1"), 9000, 1.5)
        check(f"{fault}: a new connection times out, nobody refuses it", said == "TimeoutError", said)
        said = bed.run("hub", "connect", bed.ip("node2"), 9000, 1.5)
        check(f"{fault}: other hosts are untouched", said == "connected", said)
        bed.lab.heal("node1")
        at = bed.got("node2")
        time.sleep(4)
        check(f"{fault}: after heal the same connection goes on", bed.got("node2") - at > 1000 and tick.poll() is None)
        tick.kill()
        tick.wait()

    bed.lab.blackhole("node1", peer="hub")
    said = [bed.run(h, "connect", bed.ip("node1"), 9000, 1.5) for h in ("hub", "node2")]
    check("blackhole --peer cuts only that pair", said == ["TimeoutError", "connected"], said)
    bed.lab.heal("node1")

    for percent in (10, 0):
        bed.lab.loss("node2", percent) if percent else bed.lab.heal("node2")
        sink = bed.sink("node2", 9001)
        bed.run("node1", "udp_source", bed.ip("node2"), 9001, 5000)
        lost = 100 - int(sink.communicate()[0]) / 50
        check(f"loss of {percent} %", abs(lost - percent) <= (2 if percent else 0), f"{lost:.1f} %")

    def routes(argv):
        return subprocess.run([*argv, "ip", "route", "get", "192.0.2.1"], capture_output=True).returncode == 0
    check("no way out of the lab", not routes([]) and not routes(bed.lab.argv("hub", [])) and not routes(bed.lab.argv("node1", [])))
    print(f"INSIDE {sum(results)} {len(results)}", flush=True)


# ---------------------------------------------------------------- the checks from outside

def marked(mark):
    """Processes of the whole machine that have mark in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if mark.encode() in f.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def outside():
    p = subprocess.Popen([f"{HERE}/lab.py", "--nodes", "4", "--racks", "2", "--hub-up", "200mbit", "--hub-down", "300mbit",
                          "--node-up", "500mbit", "--node-down", "500mbit", "--trunk", "150mbit", "--",
                          sys.executable, ME, "--inside"], stdout=subprocess.PIPE, text=True)
    for text in p.stdout:
        if text.startswith("INSIDE"):
            good, total = map(int, text.split()[1:])
            results.extend([True] * good + [False] * (total - good))
        else:
            print(text, end="", flush=True)
    check("the checks inside ran to their end", p.wait() == 0)

    code = subprocess.run([f"{HERE}/lab.py", "--nodes", "2", "--", "sh", "-c", "exit 7"]).returncode
    check("the command's exit status comes through", code == 7, code)
    code = subprocess.run([f"{HERE}/lab.py", "--nodes", "1", "--node-up", "nonsense", "--", "true"], capture_output=True).returncode
    check("a lab that cannot be made fails", code != 0, code)
    namespaces = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        mark = f"p2pagent-lab-selftest-{os.getpid()}-{how}"
        # setsid and a double fork: processes that try hard to stay
        script = f'for n in hub node1; do $LAB exec $n -- setsid sh -c "sleep 600; : {mark}" & done; sleep 600; : {mark}'
        p = subprocess.Popen([f"{HERE}/lab.py", "--nodes", "2", "--", "sh", "-c", script], start_new_session=True)
        end = time.monotonic() + 15
        while len(marked(mark)) < 4 and time.monotonic() < end:
            time.sleep(0.1)
        alive = len(marked(mark))
        p.send_signal(how) if how != signal.SIGINT else os.killpg(p.pid, how)
        end = time.monotonic() + 10
        while marked(mark) and time.monotonic() < end:
            time.sleep(0.1)
        left = marked(mark)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        check(f"killed by {how.name}: nothing stays behind", alive >= 4 and not left, f"{alive} before, {len(left)} after")
        p.wait()
    now = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    check("no namespace of ours outside", not {n for n in now - namespaces if n == "hub" or n.startswith("node")})
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--role"]:
        globals()["role_" + sys.argv[2]](*sys.argv[3:])
    elif sys.argv[1:2] == ["--inside"]:
        inside()
    else:
        sys.exit(outside())
