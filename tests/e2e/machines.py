"""Machines around a tunnel whose client's network is changed for it, and what they see of it.

    host 10.50.1.2 ── client ── provider ── server
         (the LAN)       └─────── braid0 ──────┘
                              provider ── far 10.40.1.2, fd40::2, sees who comes
"""
import contextlib
import os
import re
import socket
import threading

import natives
from daemon import merged
from lab import eventually, run
from lab_test import LabTest
from topology import Tunnel

FAR = {4: "10.40.1.2", 6: "fd40::2"}
DIRECT = {4: "10.20.1.1", 6: "fd20:1::1"}     # how the client is seen without the tunnel
SERVER = {4: "10.30.1.2", 6: "fd30:1::2"}     # and through it
PORT = 7000
EVERYTHING = {"network": {"routes": {"default": True, "exclude": ["lan"]}}}
NAT_AT_SERVER = {"network": {"nat": [{"source": "10.77.0.0/24", "out": "provider"},
                                     {"source": "fd77::/64", "out": "provider"}]}}


class SeenFrom:
    """A machine that tells whoever connects which address it has seen."""

    def __init__(self, ns):
        self.listeners = []
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = ns.socket(family, socket.SOCK_STREAM)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((any_address, PORT))
            listener.listen()
            self.listeners.append(listener)
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    @staticmethod
    def _serve(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, address = listener.accept()
                with connection:
                    connection.sendall(address[0].encode())

    def close(self):
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def seen_as(ns, address, seconds=2):
    """The address that one has there who connects from `ns`; nothing where nobody answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect((address, PORT))
            return client.recv(64).decode()
        except OSError:
            return None


class Machines(LabTest):
    beside_others = True

    def set_up(self, client=None, server=None, wrap=()):
        lab = self.lab
        self.client_ns, self.server_ns = lab.namespace("client"), lab.namespace("server")
        self.provider, self.far = lab.namespace("provider"), lab.namespace("far")
        self.host = lab.namespace("host")
        lab.link(self.client_ns, "10.20.1.1/24 fd20:1::1/64",
                 self.provider, "10.20.1.254/24 fd20:1::fe/64")
        lab.link(self.server_ns, "10.30.1.2/24 fd30:1::2/64",
                 self.provider, "10.30.1.254/24 fd30:1::fe/64")
        lab.link(self.far, "10.40.1.2/24 fd40::2/64", self.provider, "10.40.1.254/24 fd40::fe/64")
        lab.link(self.client_ns, "10.50.1.1/24 fd50:1::1/64",
                 self.host, "10.50.1.2/24 fd50:1::2/64")
        self.provider.forward()
        for ns, number in ((self.client_ns, "20.1"), (self.server_ns, "30.1"), (self.far, "40.1")):
            ns.ip(f"route add default via 10.{number}.254")
            v6 = {"20.1": "fd20:1::fe", "30.1": "fd30:1::fe", "40.1": "fd40::fe"}[number]
            ns.ip(f"route add default via {v6}")
        self.host.ip("route add default via 10.50.1.1")
        self.host.ip("route add default via fd50:1::1")
        self.seen_at_far, self.seen_at_host = SeenFrom(self.far), SeenFrom(self.host)
        self.addCleanup(self.seen_at_far.close)
        self.addCleanup(self.seen_at_host.close)
        # What any distribution's hardening sets.
        for name in ("all", "default", "provider", "host"):
            self.client_ns.sysctl(f"net.ipv4.conf.{name}.rp_filter", 1)
        self.etc = os.path.join(lab.folder, "etc")
        os.mkdir(self.etc)
        run("cp", "-a", "/etc/.", self.etc, check=False)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.etc, "resolv.conf"))
        with open(os.path.join(self.etc, "resolv.conf"), "w", encoding="ascii") as file:
            file.write("nameserver 10.20.1.254\n")
        binds = " && ".join(f"mount --bind {folder} {there}" for there, folder in
                            (("/etc", self.etc), *self.more_folders().items()))
        self.own_files = ("unshare", "--mount", "sh", "-c", f'{binds} && exec "$@"', "-")
        self.tunnel = Tunnel(
            lab, machines=(self.client_ns, self.server_ns), server_address=SERVER[4],
            client=merged(EVERYTHING, client), server=merged(NAT_AT_SERVER, server),
            server_owns=("0.0.0.0/0", "::/0"), client_wrap=(*self.own_files, *wrap))
        self.client, self.server = self.tunnel.daemons

    def more_folders(self):
        """What the client's programs have in the place of the machine's own, beside /etc."""
        return {}

    def add_uplink2(self):
        """Another link to the provider, whose default route counts less."""
        self.lab.link(self.client_ns, "10.21.1.1/24", self.provider, "10.21.1.254/24",
                      name="uplink2")
        self.client_ns.ip("route add default via 10.21.1.254 dev uplink2 metric 2000")

    def state(self, ns):
        """What is to be as it was: byte by byte, but for counters."""
        def output(*command):
            return ns.run(*command).stdout
        with open(os.path.join(self.etc, "resolv.conf"), encoding="ascii") as file:
            resolv_conf = file.read()
        sysctls = output("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.")
        addresses = re.sub(r"(valid|preferred)_lft \S+", "", output("ip", "addr"))
        return {
            "files": sorted(os.listdir(self.etc)),
            "addresses": addresses,
            "routes": output("ip", "route", "show", "table", "all"),
            "v6 routes": output("ip", "-6", "route", "show", "table", "all"),
            "rules": output("ip", "rule") + output("ip", "-6", "rule"),
            "nftables": output("nft", "list", "ruleset"),
            "sysctls": sysctls,
            "resolv.conf": resolv_conf,
        }

    def assert_as_before(self, before, ns, why=""):
        after = self.state(ns)
        for name, text in before.items():
            self.assertEqual(text, after[name], f"{name} {why}")

    def silence(self, port):
        """The far machine answers nothing to those who want to connect there."""
        self.far.nft("table inet silence { chain input { type filter hook input priority 0; "
                     f"tcp dport {port} drop; }}; }}")

    def eventually_seen_as(self, ns, address, wanted):
        eventually(lambda: seen_as(ns, address) == wanted, 5, f"{address} sees {wanted}")

    def cleanup(self, *options):
        return self.client_ns.run(
            *self.own_files, natives.braid(), "cleanup", "--state-dir",
            self.client.config["security"]["state_dir"], *options).stdout
