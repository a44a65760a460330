"""The configurations of etc/examples are sound, and do what they say they do.

                 ┌── fibre 192.0.2.0/25 ────┐
    lan ── gateway                          provider ── server 198.51.100.1
     192.168.1.0/24 └─ lte 192.0.2.128/25 ──┤   │
                       laptop 203.0.113.2 ──┘   └── far 10.40.1.2, fd40::2, sees who comes

Only the keys are others than in the files.
"""
import json
import os
import re

import natives
from daemon import write_private
from lab import eventually, run
from lab_test import LabTest, each
from machines import FAR, seen_as, SeenFrom

FOLDER = os.path.join(natives.ROOT, "etc/examples")
NAMES = ("gateway", "road-warrior", "server")
SERVER = {4: "198.51.100.1", 6: "fd51::1"}
# Whose public keys stand in a configuration, in this order.
PEERS = {"server": ("gateway", "road-warrior"), "gateway": ("server",), "road-warrior": ("server",)}


def wire(a, a_device, a_addresses, b, b_device, b_addresses):
    a.ip(f"link add {a_device} type veth peer name {b_device} netns {b.name}")
    for ns, device, addresses in ((a, a_device, a_addresses), (b, b_device, b_addresses)):
        for address in addresses.split():
            ns.ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
        ns.ip(f"link set {device} up")
        ns.ip(f"link show dev {device}")


class Examples(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        public = {}
        for name in NAMES:
            private = run(natives.braid(), "keygen").stdout
            write_private(os.path.join(self.lab.folder, name + ".key"), private)
            public[name] = run(natives.braid(), "pubkey", input=private).stdout.strip()
        for name in NAMES:
            with open(os.path.join(FOLDER, name + ".yaml"), encoding="utf-8") as file:
                text = file.read()
            keys = iter([public[peer] for peer in PEERS[name]])
            text = re.sub(r"public_key: \S+", lambda _: "public_key: " + next(keys), text)
            self.assertEqual(list(keys), [], f"{name} has as many peers as it should")
            with open(os.path.join(self.lab.folder, name + ".yaml"), "w", encoding="utf-8") as file:
                file.write(text)
        self.resolv_conf = os.path.join(self.lab.folder, "resolv.conf")
        with open(self.resolv_conf, "w", encoding="ascii") as file:
            file.write("nameserver 10.40.1.2\n")

    def test_there_are_no_others(self):
        self.assertEqual({name.removesuffix(".yaml") for name in os.listdir(FOLDER)}, set(NAMES))

    @each(name=NAMES)
    def test_sound(self, name):
        path = os.path.join(self.lab.folder, name)
        done = run(natives.braid(), "check", "--config", path)
        self.assertEqual((done.stdout, done.stderr), (path + ".yaml: ok\n", ""))

    def prepare(self):
        names = ("server", "provider", "far", "gateway", "lan", "laptop")
        self.machines = {name: self.lab.namespace(name) for name in names}
        server, provider, far, gateway, lan, laptop = self.machines.values()
        provider.forward()
        for ns, device, prefix, own in (
                (server, "eth0", ("198.51.100.{}/24", "fd51::{}/64"), (1, 1)),
                (far, "eth0", ("10.40.1.{}/24", "fd40::{}/64"), (2, 2)),
                (gateway, "eth0", ("192.0.2.{}/25", "fd02::{}/64"), (2, 2)),
                (gateway, "wwan0", ("192.0.2.{}/25", "fd03::{}/64"), (130, 2)),
                (laptop, "wlan0", ("203.0.113.{}/24", "fd04::{}/64"), (2, 2))):
            router = own[0] + 100, "fe"
            wire(ns, device, " ".join(p.format(n) for p, n in zip(prefix, own)), provider,
                 f"{ns.short[:7]}-{device}", " ".join(p.format(n) for p, n in zip(prefix, router)))
            for part, number in zip(prefix, router):
                via = part.format(number).partition("/")[0]
                ns.ip(f"route add default via {via} dev {device} metric {len(device)}")
        wire(gateway, "eth1", "192.168.1.1/24", lan, "eth0", "192.168.1.2/24")
        lan.ip("route add default via 192.168.1.1")
        seen = SeenFrom(far)
        self.addCleanup(seen.close)

    def start(self, name, ns):
        socket = os.path.join(self.lab.folder, name + ".sock")
        own_file = f'mount --bind {self.resolv_conf} /etc/resolv.conf && exec "$@"'
        process = ns.start(
            name, "unshare", "--mount", "sh", "-c", own_file, "-", natives.braid(), "run",
            "--config", os.path.join(self.lab.folder, name), environment={
                "BRAID_CONTROL__SOCKET": socket,
                "BRAID_SECURITY__STATE_DIR": os.path.join(self.lab.folder, name + ".state")})
        self.addCleanup(lambda: self.assertEqual(process.stop(), 0, process.err()))

        def status():
            self.assertIsNone(process.poll(), process.err())
            done = run(natives.braid(), "status", "--json", "--socket", socket, check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None
        eventually(status, 10, f"{name} answers")
        return status

    def start_pair(self, name, ns):
        self.prepare()
        self.start("server", self.machines["server"])
        status = self.start(name, self.machines[ns])
        eventually(lambda: status()["peers"][0]["established"], 10, f"{name} has a session")
        return status

    def test_a_network_behind_the_gateway_goes_out_through_the_server(self):
        status = self.start_pair("gateway", "gateway")
        self.assertEqual([path["name"] for path in status()["peers"][0]["paths"]], ["fibre", "lte"])
        for machine in ("lan", "gateway"):
            eventually(lambda ns=self.machines[machine]: seen_as(ns, FAR[4]) == SERVER[4], 10,
                       f"{machine} goes out through the server")
        eventually(lambda: seen_as(self.machines["gateway"], FAR[6]) == SERVER[6], 10, "IPv6, too")
        self.machines["gateway"].ip("link set eth0 down")
        eventually(lambda: seen_as(self.machines["lan"], FAR[4]) == SERVER[4], 10,
                   "without the fibre as well")

    def test_all_of_the_road_warrior_goes_out_through_the_server_or_not_at_all(self):
        self.start_pair("road-warrior", "laptop")
        laptop = self.machines["laptop"]
        for family in (4, 6):
            eventually(lambda f=family: seen_as(laptop, FAR[f]) == SERVER[f], 10,
                       "it goes out through the server")
        with open(self.resolv_conf, encoding="ascii") as file:
            self.assertIn("nameserver 10.77.0.1\n", file.read())
        laptop.ip("link set braid0 down")
        for family in (4, 6):
            self.assertIsNone(seen_as(laptop, FAR[family], 1))
