"""A Kubernetes in namespaces: a control plane and N nodes, each with a kubelet, a containerd and a disk of its own.

It wants to be the first process of private mount, PID and network namespaces, which scripts/k8s/run makes: when it ends, in whatever
way, the kernel ends every process and frees links, mounts and rules. A node is a PID, mount and network namespace below that, so it can
be lost as a machine is: all at once, without a word.

    10.88.0.1 control plane, name server, Hub     10.88.0.2, .3, .4 the nodes gpu-1 … gpu-3     pods: .50-.90, .100-.140, .150-.190
"""
import json
import os
import pathlib
import subprocess
import time

HOST = "10.88.0.1"
API = f"https://{HOST}:16443"
PATIENCE = 120  # seconds that anything may take

KUBECONFIG = f"""
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{API}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: admin}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"""

COREFILE = """
.:53 {
    errors
    kubernetes cluster.local {
        kubeconfig %s x
    }
}
"""

# What kube-proxy would do, for the one Service that pods here use: the API server's.
SERVICE = f"""
table ip k8s {{
    chain to {{
        type nat hook prerouting priority dstnat
        ip daddr 10.96.0.1 tcp dport 443 dnat to {HOST}:16443
    }}
}}
"""

CONTAINERD = """
version = 2
root = "{disk}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:dev"
  restrict_oom_score_adj = true # for a root without CAP_SYS_RESOURCE
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{disk}/cni"
"""

# The mounts and daemons of a node. Everything of /run is gone after a loss, as it is on a machine; the disk stays.
NODE = r"""
set -eu
mount --make-rshared /
mkdir -p {run} {disk}/kubelet {disk}/models {disk}/upper {disk}/work
mount -t tmpfs tmpfs {run}
mount -t tmpfs tmpfs /var/log
mount -t overlay overlay -o lowerdir=/var/lib,upperdir={disk}/upper,workdir={disk}/work /var/lib
mkdir -p /var/lib/p2pagent {run}/cni-state
mount --bind {disk}/models /var/lib/p2pagent
echo 1 >/proc/sys/net/ipv4/ip_forward
containerd --config {disk}/containerd.toml >>{log}/containerd-{name} 2>&1 &
for _ in $(seq 100); do [ -S {run}/containerd.sock ] && break; sleep 0.1; done
for image in {images}; do ctr -a {run}/containerd.sock -n k8s.io images import "$image" >/dev/null; done
exec kubelet --kubeconfig={kubeconfig} --config={disk}/kubelet.yaml --root-dir={disk}/kubelet --cert-dir={disk}/kubelet/pki \
    --hostname-override={name} --node-ip={ip} --node-labels=nvidia.com/gpu.present=true --register-with-taints=nvidia.com/gpu=present:NoSchedule \
    >>{log}/kubelet-{name} 2>&1
"""


def sh(*command, **more):
    """Runs a command and returns its stdout; its stderr is the reason when it fails."""
    p = subprocess.run([str(c) for c in command], text=True, capture_output=True, **more)
    if p.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:6]))}: {p.stderr.strip() or p.stdout.strip()}")
    return p.stdout


def until(what, ok, patience=PATIENCE):
    """Waits until ok() is true and returns what it said; failures count as not yet."""
    end = time.monotonic() + patience
    why = ""
    while True:
        try:
            if answer := ok():
                return answer
        except (RuntimeError, OSError, KeyError, ValueError) as e:
            why = f": {e}"
        if time.monotonic() > end:
            raise SystemExit(f"k8s: waited {patience} s in vain for {what}{why}")
        time.sleep(0.25)


def daemon(log, *command):
    with open(log, "ab") as f:
        return subprocess.Popen([str(c) for c in command], stdout=f, stderr=f, stdin=subprocess.DEVNULL)


class Node:
    """One machine. Its network namespace outlives it, as a switch's port does."""

    def __init__(self, number, work, images):
        self.name, self.ip, self.netns, self.port = f"gpu-{number}", f"10.88.0.{1 + number}", f"n{number}", f"pk{number}"
        self.disk, self.run, self.work = work / self.name, f"/run/{self.name}", work
        self.disk.mkdir(parents=True)
        self.process = None
        self.script = NODE.format(disk=self.disk, run=self.run, log=work / "log", name=self.name, ip=self.ip,
                                  images=" ".join(map(str, images)), kubeconfig=work / "kubeconfig")
        (self.disk / "containerd.toml").write_text(CONTAINERD.format(disk=self.disk, run=self.run))
        self.write_kubelet()
        self.write_network(number)
        self.plug(number)

    def write_kubelet(self):
        (self.disk / "kubelet.yaml").write_text(json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{self.run}/containerd.sock", "cgroupDriver": "cgroupfs", "failSwapOn": False,
            "failCgroupV1": False, "cgroupsPerQOS": False, "enforceNodeAllocatable": [], "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "50Mi"}, "address": self.ip, "resolvConf": "", "clusterDNS": [HOST], "clusterDomain": "cluster.local",
            "nodeStatusUpdateFrequency": "2s"}))

    def write_network(self, number):
        pods = {"subnet": "10.88.0.0/24", "rangeStart": f"10.88.0.{number * 50}", "rangeEnd": f"10.88.0.{number * 50 + 40}"}
        ipam = {"type": "host-local", "ranges": [[pods]], "routes": [{"dst": "0.0.0.0/0", "gw": HOST}], "dataDir": f"{self.run}/cni-state"}
        bridge = {"type": "bridge", "bridge": "br0", "isGateway": False, "ipMasq": False, "ipam": ipam}
        (self.disk / "cni").mkdir()
        (self.disk / "cni/10.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}))

    def plug(self, number):
        sh("ip", "netns", "add", self.netns)
        sh("ip", "link", "add", self.port, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        sh("ip", "link", "set", self.port, "master", "br0", "up")
        for words in ("link set lo up", "link add br0 type bridge", "link set eth0 master br0 up", f"addr add {self.ip}/24 dev br0",
                      "link set br0 up", f"route add default via {HOST}"):
            sh("ip", "-n", self.netns, *words.split())

    def start(self):
        sh("ip", "link", "set", self.port, "up")
        # Not `ip netns exec`, which hides the cgroups from the kubelet.
        self.process = daemon(self.work / "log" / self.name, "nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--pid", "--fork",
                              "--kill-child", "--mount-proc", "bash", "-c", self.script)

    def lose(self):
        """As a machine is lost: first nothing is heard of it, then all its processes are gone."""
        sh("ip", "link", "set", self.port, "down")
        self.process.kill()
        self.process.wait()


class Cluster:
    def __init__(self, work, images, nodes=3):
        self.work, self.log = pathlib.Path(work), pathlib.Path(work) / "log"
        self.log.mkdir(parents=True, exist_ok=True)
        self.processes = []
        os.environ["KUBECONFIG"] = str(self.work / "kubeconfig")
        (self.work / "kubeconfig").write_text(KUBECONFIG)
        self.network()
        self.control_plane()
        self.nodes = [Node(i + 1, self.work, images) for i in range(nodes)]
        for n in self.nodes:
            n.start()
        until("nodes that are ready", lambda: self.ready() == nodes)

    def network(self):
        sh("mount", "-t", "tmpfs", "tmpfs", "/run")
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "br0", "type", "bridge")
        sh("ip", "addr", "add", f"{HOST}/24", "dev", "br0")
        sh("ip", "link", "set", "br0", "up")
        sh("nft", "-f", "-", input=SERVICE)

    def spawn(self, name, *command):
        self.processes.append(daemon(self.log / name, *command))

    def control_plane(self):
        certs = self.work / "certs"
        certs.mkdir()
        sh("openssl", "genrsa", "-out", certs / "sa.key", "2048")
        (certs / "tokens.csv").write_text("admin,admin,admin,system:masters\n")
        etcd = "http://127.0.0.1:23790"
        self.spawn("etcd", "etcd", "--data-dir", self.work / "etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                   "--listen-peer-urls", "http://127.0.0.1:23800", "--unsafe-no-fsync")
        self.spawn("apiserver", "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=0.0.0.0", "--secure-port=16443", f"--cert-dir={certs}",
                   f"--service-account-key-file={certs}/sa.key", f"--service-account-signing-key-file={certs}/sa.key", "--service-account-issuer=https://k",
                   f"--token-auth-file={certs}/tokens.csv", "--authorization-mode=RBAC,Node", "--service-cluster-ip-range=10.96.0.0/16",
                   f"--advertise-address={HOST}", "--allow-privileged=true", "--endpoint-reconciler-type=none", "--kubelet-preferred-address-types=InternalIP")
        until("the API server", lambda: sh("kubectl", "get", "--raw", "/readyz") == "ok")
        config = f"--kubeconfig={self.work}/kubeconfig"
        self.spawn("controllers", "kube-controller-manager", config, f"--service-account-private-key-file={certs}/sa.key", "--secure-port=0",
                   "--leader-elect=false", f"--root-ca-file={certs}/apiserver.crt", "--node-monitor-grace-period=12s")
        self.spawn("scheduler", "kube-scheduler", config, "--secure-port=0", "--leader-elect=false")
        (self.work / "Corefile").write_text(COREFILE % (self.work / "kubeconfig"))
        self.spawn("coredns", "coredns", "-conf", self.work / "Corefile")

    def ready(self):
        return sum(c["status"] == "True" for n in get("nodes") for c in n["status"]["conditions"] if c["type"] == "Ready")


def kubectl(*args, **more):
    return sh("kubectl", *args, **more)


def get(*what):
    """The objects that kubectl get finds."""
    answer = json.loads(kubectl("get", *what, "-o", "json"))
    return answer["items"] if answer["kind"].endswith("List") else answer

