"""Who is measured: the bare link, braid in its variants, and the peers that are installed.

Each has a pair of machines and a link of its own; those whose turn it is not cost the others
nothing.
"""
import os
import subprocess

import topology
import traffic
from lab import eventually

NO_TUNNEL = "no tunnel"
INNER_MTU = 1420
CIPHERS = ("aes-256-gcm", "chacha20-poly1305")
OUTER_CLIENT, OUTER_SERVER = topology.OUTER[4]
INNER_CLIENT, INNER_SERVER = topology.INNER[4]
HOST, HOST_GATEWAY = "10.21.1.2", "10.21.1.1"
START_SECONDS = 20  # a peer's, until it answers to ping


class Contender:
    """One way between two machines. A host stands behind the client, which is its gateway and gives
    it its own address."""

    kind = "link"
    version = ""

    def __init__(self, name):
        self.name = name
        self.host = self.client = self.server = None  # namespaces
        self.address = OUTER_SERVER
        self.processes = ()
        self.broken = None  # why it cannot be measured

    def start(self, lab, number):
        self.host, self.client, self.server = (lab.namespace(f"{short}{number}")
                                               for short in ("host", "client", "server"))
        lab.link(self.client, f"{OUTER_CLIENT}/24", self.server, f"{OUTER_SERVER}/24")
        lab.link(self.host, f"{HOST}/24", self.client, f"{HOST_GATEWAY}/24")
        self.host.ip(f"route add default via {HOST_GATEWAY}")
        self.client.forward()
        self.client.masquerade(f"ip saddr {HOST}")

    def check_alive(self):
        for process in self.processes:
            code = process.poll()
            if code is not None:
                last = (process.err() + process.out()).strip().rpartition("\n")[2]
                raise AssertionError(f"{process.name} has ended with {code}: {last}")

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.processes)

    def resident_mb(self):
        """Of the larger one of both ends."""
        return max(process.resident_bytes() for process in self.processes) / 1e6


class Braid(Contender):
    """braid with its defaults, but for `config`."""

    kind = "braid"

    def __init__(self, name, program, config):
        super().__init__(name)
        self.program = program
        self.config = config
        done = subprocess.run([program, "--version"], text=True, stdout=subprocess.PIPE,
                              check=False)
        self.version = done.stdout.strip()

    def start(self, lab, number):
        super().start(lab, number)
        both = topology.merged({"network": {"mtu": INNER_MTU}, "log": {"level": "info"}},
                               self.config)
        tunnel = topology.Tunnel(lab, machines=(self.client, self.server), guarded=False,
                                 suffix=str(number), both=both, program=self.program)
        tunnel.start()
        self.processes = tuple(daemon.process for daemon in tunnel.daemons)
        self.address = INNER_SERVER
        self._check_settings(tunnel.client)

    def _check_settings(self, daemon):
        """It measures what its name says."""
        status = daemon.try_status()
        got = {**status, "cipher": status["peers"][0]["cipher"], "workers": len(status["workers"])}
        wanted = {**self.config.get("performance", {}),
                  "cipher": self.config["tunnel"]["ciphers"][0]}
        for key, value in wanted.items():
            if got[key] != value:
                raise AssertionError(f"{key} is {got[key]} instead of {value}")


class Peer(Contender):
    """What a plug-in script starts; bench/peers/README.md has the contract."""

    kind = "peer"

    def __init__(self, script):
        super().__init__(os.path.basename(script))
        self.script = script
        self.missing = None  # how to install it
        try:
            done = subprocess.run([script, "version"], text=True, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20,
                                  check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.missing = str(error)
            return
        said = done.stdout.strip().partition("\n")[0]
        if done.returncode == 0:
            self.version = said
        else:
            self.missing = said or f"{script} version: exit code {done.returncode}"

    def start(self, lab, number):
        super().start(lab, number)
        folder = os.path.join(lab.folder, f"peer{number}")
        os.mkdir(folder, 0o700)
        self.client.run(self.script, "prepare", env={**os.environ, "PEER_FOLDER": folder})
        ends = {"server": (self.server, OUTER_SERVER, INNER_SERVER),
                "client": (self.client, OUTER_CLIENT, INNER_CLIENT)}
        self.processes = tuple(self._run(folder, ends, side) for side in ("server", "client"))
        self.address = INNER_SERVER
        eventually(self._answers, START_SECONDS, f"{self.name} answers to ping", interval=0.2)

    def _run(self, folder, ends, side):
        other = "client" if side == "server" else "server"
        ns, outer, inner = ends[side]
        environment = {
            "PEER_FOLDER": folder, "PEER_SIDE": side, "PEER_OTHER_SIDE": other,
            "PEER_DEVICE": "tun0", "PEER_OUTER_LOCAL": outer, "PEER_OUTER_REMOTE": ends[other][1],
            "PEER_OUTER_PORT": str(topology.PORT), "PEER_INNER_LOCAL": inner,
            "PEER_INNER_REMOTE": ends[other][2]}
        return ns.start(self.name, self.script, "run", environment=environment)

    def _answers(self):
        self.check_alive()
        return traffic.ping(self.client, self.address, count=1, wait=1).received == 1


def braid_variants():
    """What is said of braid's configuration, by the contender's name. The defaults are io_uring,
    intel-ipsec-mb where there is one, and a worker for each CPU."""
    changes = {"": {}, " sodium": {"aead": "sodium"}, " epoll": {"io": "epoll"}}
    for count in {1, 2} - {len(os.sched_getaffinity(0))}:
        changes[f" {count}-worker" + ("s" if count > 1 else "")] = {"workers": count}
    return {cipher + name: {"tunnel": {"ciphers": list(dict.fromkeys((cipher, CIPHERS[1])))},
                            "performance": performance}
            for cipher in CIPHERS for name, performance in changes.items()}


def peers_of(folders):
    """The plug-ins of the folders, by name; a later folder's replaces an earlier one's."""
    scripts = {}
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            path = os.path.abspath(os.path.join(folder, name))
            if os.path.isfile(path) and os.access(path, os.X_OK):
                scripts[name] = path
    return [Peer(script) for script in scripts.values()]


def all_of(braids, folders):
    """`braids` are pairs of a name, which the first one lacks, and the program."""
    found = [Contender(NO_TUNNEL)]
    for name, config in braid_variants().items():
        for build, program in braids:
            found.append(Braid(f"{name}@{build}" if build else name, program, config))
    return found + peers_of(folders)
