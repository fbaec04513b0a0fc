"""hosts.py - the hosts of a lab: their processes and what those use, and the Hub among them."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
HUB_PORT, CDN_PORT = 8080, 8081
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Failed(Exception):
    """The run did not do what it must; the text says what."""


def clean_env(**more):
    """Our environment without proxies, tokens and settings of the caller's own Hub cache."""
    drop = ("HF_", "HUGGING", "P2PAGENT_")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop) and k.lower() not in PROXIES} | more


def wait(what, timeout, ready, step=0.05):
    """Calls ready() until it is true; its last value is returned. Failed after timeout seconds."""
    end = time.monotonic() + timeout
    while not (value := ready()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {timeout} s")
        time.sleep(step)
    return value


# ---------------------------------------------------------------- processes of one host

class Host:
    """One host of the lab: starts, watches, breaks and ends its processes."""

    def __init__(self, fleet, name):
        self.fleet, self.name, self.ip = fleet, name, fleet.where.hosts[name]["ip"]
        self.dir = f"{fleet.data}/{name}"
        os.makedirs(self.dir, exist_ok=True)
        self.log = open(f"{fleet.logs}/{name}.log", "ab")
        self.inode = os.stat(f"/run/netns/{name}").st_ino
        self.running, self.cpu_dead, self.anon_peak, self.down = {}, 0.0, 0, False

    def start(self, argv, env=None, stdout=None):
        p = subprocess.Popen(self.fleet.where.argv(self.name, argv), env=env or clean_env(), cwd=self.dir, stdin=subprocess.DEVNULL,
                             stdout=stdout or self.log, stderr=self.log, start_new_session=True)
        self.running[p.pid] = p
        return p

    def pids(self):
        """Every process in the host's network namespace, ours or started by ours."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino == self.inode:
                    found.append(int(pid))
            except OSError:                                 # it ended meanwhile
                pass
        return found

    def signal_all(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """kill -9 of everything at once: what a crash or the OOM killer does."""
        self.down = True
        self.signal_all(signal.SIGKILL)
        wait(f"{self.name}: processes end after SIGKILL", 10, lambda: not self.reap() and not self.running)

    def pause(self):
        self.signal_all(signal.SIGSTOP)

    def resume(self):
        self.signal_all(signal.SIGCONT)

    def reap(self):
        """{pid: exit code} of what ended since the last call."""
        ended = {}
        for pid in list(self.running):
            got, status, use = os.wait4(pid, os.WNOHANG)
            if got:
                p = self.running.pop(pid)
                p.returncode = ended[pid] = os.waitstatus_to_exitcode(status)
                self.cpu_dead += use.ru_utime + use.ru_stime
        return ended

    def ports_to(self, ip):
        """The TCP ports of this host that have a connection to that address."""
        out = subprocess.run(self.fleet.where.argv(self.name, ["ss", "-Htn", "state", "established", "dst", ip]), text=True, capture_output=True, check=True)
        return sorted({int(line.split()[2].rsplit(":", 1)[1]) for line in out.stdout.splitlines()})

    def usage(self):
        """(CPU seconds so far, anonymous memory of the largest process now)."""
        cpu, anon = self.cpu_dead, 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                with open(f"/proc/{pid}/status") as f:
                    status = dict(line.split(":", 1) for line in f)
            except OSError:
                continue
            cpu += sum(map(int, fields[11:15])) / TICK       # own and waited-for children, user and system
            anon = max(anon, int(status.get("RssAnon", "0 kB").split()[0]) * 1024)
        self.anon_peak = max(self.anon_peak, anon)
        return cpu, anon


# ---------------------------------------------------------------- the Hub

class UnixHTTP(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Hub(Host):
    def serve(self, *args):
        """Starts hubserver with the given --model or --generate flags and waits until it serves."""
        self.control = f"{self.fleet.sockets}/hub"
        url = f"{self.ip}:{HUB_PORT}"
        self.start([f"{self.fleet.bin}/hubserver", "-listen", url, "-cdn", f"{self.ip}:{CDN_PORT}", "-control", f"unix:{self.control}", *args])
        wait("the Hub serves", 180, self.ready)
        self.endpoint = "http://" + url

    def ready(self):
        if any(self.reap().values()):
            raise Failed(f"hubserver ended: see {self.log.name}")
        try:
            return self.stats()
        except (OSError, http.client.HTTPException):
            return None

    def ask(self, method, path):
        c = UnixHTTP(self.control)
        try:
            c.request(method, path)
            answer = c.getresponse()
            text = answer.read().decode()
        finally:
            c.close()
        if answer.status != 200:
            raise Failed(f"hubserver {method} {path}: {answer.status} {text.strip()}")
        return json.loads(text)

    def stats(self):
        return self.ask("GET", "/stats")

    def requests(self):
        return self.ask("GET", "/requests")

    def stall(self, path, after, times=1):
        """So many requests for the file get no further than that offset; their sockets stay open."""
        return self.ask("POST", f"/stall?path={path}&after={after}&times={times}")
