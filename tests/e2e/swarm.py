"""A server, and a swarm: many clients out of one process (bench/swarm).

    swarm 10.20.2.1, 10.30.0.0/16 ──veth── 10.20.2.2 server
      └ 10.64.0.1, 10.64.0.2, … ════════ 10.127.255.254 ┘

Behind a NAT all clients share its one address:

    swarm 10.20.3.1, 10.30.0.0/16 ──veth── 10.20.3.2 nat 10.20.2.1 ──veth── 10.20.2.2 server
"""
import json
import os
import socket

import natives
from daemon import Daemon, endpoint, merged
from lab import LabError, run

OUTER = ("10.20.2.1", "10.20.2.2")
BEHIND_NAT = ("10.20.3.1", "10.20.3.2")
NAT_PORTS = "20000-59999"
SOURCES = "10.30.0.0/16"  # each client sends from one of its own
INNER_NET = "10.64.0.0/10"
SERVER_INNER = "10.127.255.254"
EXTRA_INNER = "10.127.255.1"  # of a real client beside the swarm
SINK_PORT = 9
_SO_RCVBUFFORCE = 33


class SwarmServer:
    """`extra` is the identity of a real client that the server knows too."""

    def __init__(self, lab, clients, config=None, extra=None, guarded=True, suffix="", nat=False):
        self.clients = clients
        self.lab = lab
        self.server_ns = lab.namespace("server" + suffix)
        self.swarm_ns = lab.namespace("swarm" + suffix)
        self.swarm_ns.ip(f"route add local {SOURCES} dev lo")
        if nat:
            self._link_through(lab.namespace("nat" + suffix))
        else:
            lab.link(self.swarm_ns, OUTER[0] + "/24", self.server_ns, OUTER[1] + "/24")
            self.server_ns.ip(f"route add {SOURCES} via {OUTER[0]}")
        file = os.path.join(lab.folder, f"keys{suffix}.json")
        extras = ("--extra-peer", f"{extra.public}={EXTRA_INNER}/32") if extra else ()
        self.public = run(natives.path("swarm"), "keys", "--clients", clients,
                          "--server-config", file, *extras).stdout.strip()
        with open(file, encoding="ascii") as written:
            keys = json.load(written)
        keys["security"]["private_key_file"] = file + ".key"
        self.daemon = Daemon(self.server_ns, "server" + suffix,
                             merged(merged(keys, {"log": {"level": "info"}}), config),
                             guarded=guarded)

    def _link_through(self, nat):
        self.lab.link(self.swarm_ns, BEHIND_NAT[0] + "/24", nat, BEHIND_NAT[1] + "/24")
        self.lab.link(nat, OUTER[0] + "/24", self.server_ns, OUTER[1] + "/24")
        self.swarm_ns.ip(f"route add default via {BEHIND_NAT[1]}")
        nat.ip(f"route add {SOURCES} via {BEHIND_NAT[0]}")
        nat.forward()
        nat.masquerade(f'oifname "{self.server_ns.short}"', NAT_PORTS)

    def start(self, seconds=60):
        self.daemon.start(ready=False)
        self.daemon.wait_ready(seconds)
        return self

    def client_of(self, ns, identity, server_address, guarded=True, suffix="", config=None):
        """A real client that the server knows as its extra peer."""
        return Daemon(ns, "client" + suffix, merged({
            "mode": "client",
            "network": {"addresses": [EXTRA_INNER + "/10"]},
            "security": {"private_key_file": identity.file},
            "tunnel": {"peers": [{"name": "hub", "public_key": self.public,
                                  "endpoints": [endpoint(server_address)],
                                  "allowed_ips": [INNER_NET]}]},
            "log": {"level": "info"},
        }, config), guarded=guarded)

    def sink(self, buffer_bytes=1 << 16):
        """A socket that the swarm's packets end in."""
        sink = self.server_ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        sink.bind((SERVER_INNER, SINK_PORT))
        return sink

    def command(self, mode, *options, probe=True):
        probes = ("--server-pid", self.daemon.process.pid,
                  "--control-socket", self.daemon.socket_path) if probe else ()
        return [natives.path("swarm"), mode, "--clients", self.clients,
                "--server", f"{OUTER[1]}:7700", "--sources", SOURCES, "--json", *probes, *options]

    def swarm(self, mode, *options):
        """Runs a swarm to its end; returns what it measured."""
        process = self.start_swarm(mode, *options)
        return self.result(process, seconds=600)

    def start_swarm(self, mode, *options, probe=True):
        """Without `probe` it does not look at the server's process, which may then be another."""
        count = len(self.lab.processes)
        return self.swarm_ns.start(f"{mode}{count}", *self.command(mode, *options, probe=probe))

    @staticmethod
    def result(process, seconds=60):
        code = process.wait(seconds)
        if code != 0:
            raise LabError(f"swarm ended with {code}: {process.err()[-1000:]}")
        return json.loads(process.out())

    def established(self):
        return sum(peer["established"] for peer in self.daemon.status()["peers"])

    def tun_packets(self):
        """That the server has written to its device."""
        return self.server_ns.counter(self.daemon.device, "rx_packets")
