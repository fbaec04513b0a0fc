"""procs.py - the Hub and agents as child processes on loopback: started, asked, ended."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
running = []


class Failed(Exception):
    pass


def clean_env(**more):
    """Our environment without proxies, tokens and the caller's own cache."""
    drop = ("HF_", "HUGGING", "P2PAGENT_")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop) and k.lower() not in PROXIES} | more


def free_ports(n):
    """n ports free for both TCP and UDP a moment ago, below those that the kernel gives to outgoing connections."""
    held, ports = [], []
    while len(ports) < n:
        port, t, u = random.randrange(10000, 32000), socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held += [t, u]
        try:
            t.bind(("127.0.0.1", port))
            u.bind(("127.0.0.1", port))
            ports.append(port)
        except OSError:
            pass
    for s in held:
        s.close()
    return ports


def wait(what, seconds, ready):
    end = time.monotonic() + seconds
    while not (value := ready()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return value


class Process:
    def __init__(self, name, argv, env, log, **more):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.p = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more)
        running.append(self)

    def stop(self, patience=12):
        """SIGTERM, and SIGKILL to one that does not go; True when the first was enough."""
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
        try:
            self.p.wait(patience)
            return True
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait(5)
            return False

    def words(self):
        with open(self.log, errors="replace") as f:
            return " | ".join(f.read().splitlines()[-3:])[-500:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def stop_all():
    for p in running:
        p.stop(3)


class Hub(Process):
    """repos: {"[datasets/]org/name@revision": folder}; flags are more of hubserver's, token is what commit asks by."""

    def __init__(self, binaries, work, repos, patience=60, flags=(), token=None):
        os.makedirs(work, exist_ok=True)
        self.token = token
        port, cdn, control = free_ports(3)
        self.url, self.control = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{control}"
        argv = [f"{binaries}/hubserver", "-listen", f"127.0.0.1:{port}", "-cdn", f"127.0.0.1:{cdn}", "-control", f"127.0.0.1:{control}", *flags]
        super().__init__("hubserver", argv + [x for ref, d in repos.items() for x in ("-model", f"{ref}={d}")], clean_env(), f"{work}/hub.log")
        wait("hubserver serves", patience, self.ready)

    def ready(self):
        if self.p.poll() is not None:
            raise Failed(f"hubserver ended: {self.words()}")
        try:
            return self.stats()
        except OSError:
            return None

    def ask(self, path, method="GET", base=None):
        header = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with urllib.request.urlopen(urllib.request.Request((base or self.control) + path, method=method, headers=header), timeout=10) as answer:
            return json.load(answer)

    def stats(self):
        return self.ask("/stats")

    def reset(self):
        return self.ask("/reset", "POST")

    def post(self, path, value):
        urllib.request.urlopen(urllib.request.Request(self.control + path, json.dumps(value).encode(), method="POST"), timeout=10).close()

    def commit(self, kind, repo, revision):
        return self.ask(f"/api/{kind}s/{repo}/revision/{urllib.parse.quote(revision, safe='')}", base=self.url)["sha"]


def keygen(binaries, path):
    p = subprocess.run([f"{binaries}/p2pagent", "keygen"], env=clean_env(), capture_output=True, text=True, timeout=30)
    if p.returncode:
        raise Failed(f"p2pagent keygen: {p.stderr.strip()}")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(p.stdout)
    return path


class Agent(Process):
    def __init__(self, binaries, work, hub, key, join=None, home=None, gateway=False, **env):
        os.makedirs(work, exist_ok=True)  # one that was killed comes back
        self.binary, self.work, self.home = f"{binaries}/p2pagent", work, home or f"{work}/hf"
        gossip, swarm, door = free_ports(3)
        self.gateway = f"http://127.0.0.1:{door}" if gateway else None
        self.gossip, self.socket = f"127.0.0.1:{gossip}", f"{work}/sock"
        self.env = clean_env(HF_HOME=self.home, HF_ENDPOINT=hub.url, HOME=work, **env)
        argv = [self.binary, "agent", "--state-dir", f"{work}/state", "--bind", "127.0.0.1", "--gateway", f"127.0.0.1:{door}" if gateway else "off", "--gossip-port", str(gossip), "--swarm-port", str(swarm),
                "--swarm-key-file", key, "--socket", self.socket, *(["--join", join] if join else [])]
        super().__init__(os.path.basename(work), argv, self.env, f"{work}/log")
        wait(f"agent {self.name} answers", 30, self.ready)

    def ready(self):
        if self.p.poll() is not None:
            raise Failed(f"agent {self.name} ended with {self.p.returncode}: {self.words()}")
        return subprocess.run([self.binary, "status", "--socket", self.socket], env=self.env, capture_output=True, timeout=10).returncode == 0

    def members(self):
        """How many other members it sees."""
        p = subprocess.run([self.binary, "status", "--socket", self.socket, "--format", "json"], env=self.env, capture_output=True, text=True, timeout=10)
        return json.loads(p.stdout)["members"] if p.returncode == 0 else -1

    def fetch(self, ref, *flags, limit=120):
        """Starts `p2pagent fetch`; what it returns waits and gives (exit code, last line of stdout, last of stderr)."""
        p = subprocess.Popen([self.binary, "fetch", ref, *flags, "--socket", self.socket, "--format", "quiet"], env=self.env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def result():
            try:
                out, err = p.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                p.kill()
                out, err = p.communicate()
            return p.returncode, (out.strip().splitlines() or [""])[-1], re.sub(r"\s+", " ", err)[-300:]
        return result
