#!/usr/bin/env python3
"""lab.py - a throw-away network of namespaces with capped links.

    lab.py [topology options] -- COMMAND ...     make the lab, run COMMAND in it, remove the lab
    lab.py [topology options]                    the same with an interactive shell

COMMAND runs in the lab's fabric (the switch): it can reach no network but the lab's own links, and it
drives the lab with the sub-commands below, or with `import lab` from Python.

    lab.py exec NAME -- CMD ...        run CMD on hub or nodeK
    lab.py names                       one line a host: name, address, rack
    lab.py counters                    bytes sent/received per link, as JSON (kernel counters)
    lab.py cut NAME                    unplug the link (carrier goes down)
    lab.py blackhole NAME [--peer P]   drop everything silently, no RST and no ICMP (P: only traffic with P)
    lab.py loss NAME PERCENT           drop packets at random, both directions
    lab.py rate NAME [--up R] [--down R]   change a cap (tc rates such as 200mbit; 0 = none)
    lab.py heal NAME                   undo cut, blackhole and loss
NAME is hub, nodeK or (not for exec) trunkR.

How it stays clean: everything lives in one private set of mount, PID and network namespaces made by
unshare(2). When COMMAND ends, or lab.py is killed in any way (SIGKILL too), the kernel ends every process
in the PID namespace and frees links, rules, mounts and the tmpfs with the data. Nothing is visible from
outside and several labs can run side by side with the same addresses.
"""
import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys

RUN = "/run/p2pagent-lab"                     # a tmpfs of the lab's own, see mounts()
STATE = RUN + "/lab.json"
SYSFS = RUN + "/sys"                    # sysfs as the fabric sees it
DATA = RUN + "/data"                    # tmpfs for what hosts store
SUBCOMMANDS = ("exec", "names", "counters", "cut", "blackhole", "loss", "rate", "heal")


# ---------------------------------------------------------------- small helpers

def sh(*cmd, stdin=None):
    """Runs a command; on failure raises with its stderr."""
    p = subprocess.run(cmd, input=stdin, text=True, capture_output=True)
    if p.returncode:
        raise RuntimeError(f"{' '.join(cmd)}: {p.stderr.strip() or p.stdout.strip()}")
    return p.stdout


def batch(tool, lines, netns=None):
    """Feeds lines to `ip -batch` or `tc -batch`: one process for many changes."""
    if lines:
        sh(tool, *(["-n", netns] if netns else []), "-batch", "-", stdin="\n".join(lines) + "\n")


def bits(rate):
    """'200mbit' -> 200_000_000; 0 for no cap."""
    r = str(rate).strip().lower()
    for suffix, factor in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3), ("bit", 1)):
        if r.endswith(suffix):
            return int(float(r[:-len(suffix)]) * factor)
    return int(float(r or 0))


def port(name):
    return "p-" + name                  # the fabric's end of a host's link


# ---------------------------------------------------------------- the lab

class Lab:
    """The lab that this process runs in (state is a plain dict kept in lab.json)."""

    def __init__(self, state=None):
        if state is None:
            with open(STATE) as f:
                state = json.load(f)
        self.state = state
        self.hosts = state["hosts"]             # name -> {ip, rack}
        self.nodes = [n for n in self.hosts if n != "hub"]

    # ---- making it

    @classmethod
    def create(cls, o):
        hosts = {"hub": {"ip": "10.77.0.1", "rack": 1}}
        for i in range(1, o.nodes + 1):
            hosts[f"node{i}"] = {"ip": f"10.77.{1 + (i - 1) // 250}.{1 + (i - 1) % 250}",
                                 "rack": 1 + (i - 1) * o.racks // o.nodes}
        state = {"hosts": hosts, "racks": o.racks, "options": vars(o)}
        lab = cls(state)
        sh("ip", "link", "set", "lo", "up")
        fabric = []
        for r in range(1, o.racks + 1):
            fabric += [f"link add br{r} type bridge stp_state 0 mcast_snooping 0 forward_delay 0",
                       f"link set br{r} up"]
        for r in range(2, o.racks + 1):         # rack 1 holds the hub; the others hang off it by a trunk
            fabric += [f"link add trunk{r} mtu {o.mtu} type veth peer name trunk{r}-in mtu {o.mtu}",
                       f"link set trunk{r} master br1 up", f"link set trunk{r}-in master br{r} up"]
        for name, h in hosts.items():
            sh("ip", "netns", "add", name)
            fabric += [f"link add {port(name)} mtu {o.mtu} type veth peer name eth0 mtu {o.mtu} netns {name}",
                       f"link set {port(name)} master br{h['rack']} up"]
        batch("ip", fabric)
        for name, h in hosts.items():
            batch("ip", ["link set lo up", f"addr add {h['ip']}/16 dev eth0", "link set eth0 up"]
                  + ([f"link set eth0 gso_max_segs {o.gso_segs}"] if o.gso_segs else []), name)
            sysctl = {"net/ipv6/conf/all/disable_ipv6": 1, "net/ipv4/tcp_congestion_control": o.cc,
                      "net/ipv4/ip_unprivileged_port_start": 0}
            sh("ip", "netns", "exec", name, "sh", "-c",
               ";".join(f"[ ! -e /proc/sys/{k} ] || echo {v} >/proc/sys/{k}" for k, v in sysctl.items()))
            os.makedirs(f"{DATA}/{name}", exist_ok=True)
        lab.rate("hub", up=o.hub_up, down=o.hub_down)
        for n in lab.nodes:
            lab.rate(n, up=o.node_up, down=o.node_down)
        for r in range(2, o.racks + 1):
            lab.rate(f"trunk{r}", up=o.trunk, down=o.trunk)
        lab.save()
        return lab

    def save(self):
        with open(STATE + ".new", "w") as f:
            json.dump(self.state, f)
        os.replace(STATE + ".new", STATE)

    # ---- using it

    def argv(self, name, cmd):
        """The command line that runs cmd on a host."""
        if name not in self.hosts:
            raise KeyError(f"no host {name}")
        return ["ip", "netns", "exec", name, *cmd]

    def ends(self, link):
        """(netns or None, device) that sends away from the host, and the one that sends towards it."""
        if link.startswith("trunk"):
            return (None, link + "-in"), (None, link)      # away = rack to rack 1
        return (link, "eth0"), (None, port(link))

    def rate(self, link, up=None, down=None):
        """Caps a link: up is what the host (or the far rack) sends, down what it gets."""
        o = self.state["options"]
        for value, (ns, dev) in zip((up, down), self.ends(link)):
            if value is None:
                continue
            n = [] if ns is None else ["-n", ns]
            if bits(value):
                sh("tc", *n, "qdisc", "replace", "dev", dev, "root", "tbf", "rate", str(bits(value)) + "bit",
                   "burst", o["burst"], "latency", o["queue"])
            else:
                subprocess.run(["tc", *n, "qdisc", "del", "dev", dev, "root"], capture_output=True)

    def counters(self):
        """{link: {sent, recv}} in bytes, from the fabric's side. For a trunk, sent = from the far rack.

        The kernel counts a GSO packet's headers once, so this is payload plus about 0.1 % of headers,
        while the caps count every wire packet's headers (about 4.4 % at MTU 1500)."""
        out = {}
        for link in self.links():
            dev = self.ends(link)[1][1]
            with open(f"{SYSFS}/class/net/{dev}/statistics/rx_bytes") as rx, \
                    open(f"{SYSFS}/class/net/{dev}/statistics/tx_bytes") as tx:
                out[link] = {"sent": int(rx.read()), "recv": int(tx.read())}
        return out

    def links(self):
        return [*self.hosts, *(f"trunk{r}" for r in range(2, self.state["racks"] + 1))]

    # ---- breaking it

    def cut(self, link):
        sh("ip", "link", "set", self.ends(link)[1][1], "down")

    def blackhole(self, link, peer=None):
        """Silent: the host's own socket calls succeed and nothing comes back."""
        ip = self.hosts[peer]["ip"] if peer else None
        self._rules(link, [(f"ip {side} {ip} " if ip else "") + "counter drop" for side in ("daddr", "saddr")])

    def forget(self, link, ports):
        """As a NAT that dropped its state: what goes over these TCP ports of the host vanishes, new ports work."""
        some = ", ".join(map(str, ports))
        self._rules(link, [f"tcp {side} {{ {some} }} counter drop" for side in ("sport", "dport")])

    def loss(self, link, percent):
        """A GSO packet of up to 64 KiB counts as one packet; --gso-segs 1 makes the unit one MTU."""
        self._rules(link, [f"numgen random mod 100000 < {round(float(percent) * 1000)} counter drop"] * 2)

    def heal(self, link):
        self._rules(link, None)
        sh("ip", "link", "set", self.ends(link)[1][1], "up")

    def _rules(self, link, rules):
        """Sets the drop rules of a link's port: [for what the host sends, for what it gets]."""
        dev, tag = self.ends(link)[1][1], link.replace("-", "_")
        text = "add table netdev lab\n"
        for hook, rule in zip(("ingress", "egress"), rules or [None, None]):
            chain = f"netdev lab {hook}_{tag}"
            spec = f'{{ type filter hook {hook} device "{dev}" priority 0; policy accept; }}'
            text += f"add chain {chain} {spec}\nflush chain {chain}\n"
            text += f"add rule {chain} {rule}\n" if rule else f"delete chain {chain}\n"
        sh("nft", "-f", "-", stdin=text)


# ---------------------------------------------------------------- getting in and out

def mounts(tmpfs):
    """Private mounts: they vanish with the mount namespace."""
    for path, size in (("/run/netns", "1m"), (RUN, tmpfs)):
        os.makedirs(path, exist_ok=True)
        sh("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "p2pagent-lab", path)
    os.makedirs(SYSFS)
    os.makedirs(DATA)
    sh("mount", "-t", "sysfs", "-o", "ro", "sysfs", SYSFS)


def supervise(o, command):
    """PID 1 of the lab: make it, run the command, reap orphans, and leave with the command's status."""
    mounts(o.tmpfs)
    Lab.create(o)
    env = dict(os.environ, LAB=os.path.abspath(__file__), LAB_NODES=str(o.nodes), PYTHONDONTWRITEBYTECODE="1")
    child = subprocess.Popen(command or [os.environ.get("SHELL", "/bin/sh")], env=env)
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda n, _: child.send_signal(n))
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def enter(o, command):
    """Forks PID 1 of fresh namespaces; returns its exit status. It cannot outlive this process."""
    for tool in ("ip", "tc", "nft", "mount"):
        if not shutil.which(tool):
            sys.exit(f"lab.py: {tool} not found (Debian: apt-get install iproute2 nftables mount)")
    if os.geteuid():
        sys.exit("lab.py: must run as root")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x00020000 | 0x40000000 | 0x20000000):      # CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID
        sys.exit(f"lab.py: unshare: {os.strerror(ctypes.get_errno())}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)                # Ctrl-C is for the command, which we start with it restored
    pid = os.fork()
    if not pid:
        status = 1
        try:
            libc.prctl(1, signal.SIGKILL)                       # PR_SET_PDEATHSIG
            signal.signal(signal.SIGINT, lambda *_: None)       # unlike SIG_IGN not inherited by the command
            sh("mount", "--make-rprivate", "/")
            sh("mount", "-t", "proc", "proc", "/proc")
            status = supervise(o, command)
        except Exception as e:
            print(f"lab.py: {e}", file=sys.stderr)
        finally:
            os._exit(status)                                    # the kernel ends whatever is left in here

    def forward(n, _):
        os.kill(pid, n)
        signal.alarm(10)                                        # a command that will not go is made to
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, forward)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def topology_options(p):
    """Every option has an environment variable: --hub-up is LAB_HUB_UP, and so on."""
    def opt(flag, default, text, kind=str):
        key = "LAB_" + flag.replace("-", "_").upper()
        p.add_argument("--" + flag, default=kind(os.environ.get(key, default)), type=kind,
                       help=f"{text} [{key}, default {default}]")
    opt("nodes", 4, "number of nodes", int)
    opt("racks", 1, "number of racks; rack 1 holds the hub", int)
    opt("hub-up", "200mbit", "what the hub may send: the scarce upstream; 0 = no cap, so for all rates")
    opt("hub-down", "800mbit", "what the hub may receive")
    opt("node-up", "800mbit", "what each node may send")
    opt("node-down", "800mbit", "what each node may receive")
    opt("trunk", "400mbit", "rate of each trunk, per direction")
    opt("mtu", 1500, "MTU of all links", int)
    opt("burst", "128kb", "bucket size of the caps; at least 64kb, or GSO packets are cut up")
    opt("queue", "20ms", "queue in front of a capped link")
    opt("cc", "cubic", "TCP congestion control in all hosts")
    opt("gso-segs", 0, "limit of segments in a GSO packet; 1 = real MTU-sized packets, more CPU", int)
    opt("tmpfs", "90%", "size limit of the RAM disk for the hosts' data")


def main():
    argv = sys.argv[1:]
    if argv and argv[0] in SUBCOMMANDS:
        return subcommand(argv)
    ours, command = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    topology_options(p)
    o = p.parse_args(ours)
    if not 1 <= o.racks <= o.nodes <= 1000:
        p.error("want 1 <= racks <= nodes <= 1000")
    return enter(o, command)


def subcommand(argv):
    p = argparse.ArgumentParser(prog="lab.py " + argv[0])
    what = argv[0]
    if what == "exec":
        rest = argv[1:]
        if len(rest) < 2:
            p.error("usage: lab.py exec NAME -- CMD ...")
        cmd = rest[2:] if rest[1] == "--" else rest[1:]
        line = Lab().argv(rest[0], cmd)
        os.execvp(line[0], line)
    lab = Lab()
    if what == "names":
        for n, h in lab.hosts.items():
            print(n, h["ip"], h["rack"])
    elif what == "counters":
        print(json.dumps(lab.counters(), indent=1))
    else:
        p.add_argument("name", choices=lab.links())
        if what == "loss":
            p.add_argument("percent", type=float)
        if what == "blackhole":
            p.add_argument("--peer", choices=list(lab.hosts))
        if what == "rate":
            p.add_argument("--up")
            p.add_argument("--down")
        a = vars(p.parse_args(argv[1:]))
        getattr(lab, what)(a.pop("name"), **a)


if __name__ == "__main__":
    sys.exit(main())
