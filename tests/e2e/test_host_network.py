"""What braid changes of the machine around the tunnel, and that any end is followed by what was there
before.

    host 10.50.1.2 ── client ── provider ── server
         (the LAN)       └─────── braid0 ──────┘
                              provider ── far 10.40.1.2, fd40::2, sees who comes
"""
import contextlib
import os
import re
import socket
import threading
import time

import natives
from daemon import merged
from lab import eventually, run
from lab_test import LabTest
from topology import Tunnel
from traffic import ping

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
        own_etc = ("unshare", "--mount", "sh", "-c", f'mount --bind {self.etc} /etc && exec "$@"', "-")
        self.tunnel = Tunnel(
            lab, machines=(self.client_ns, self.server_ns), server_address=SERVER[4],
            client=merged(EVERYTHING, client), server=merged(NAT_AT_SERVER, server),
            server_owns=("0.0.0.0/0", "::/0"), client_wrap=(*own_etc, *wrap))
        self.client, self.server = self.tunnel.daemons

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

    def eventually_seen_as(self, ns, address, wanted):
        eventually(lambda: seen_as(ns, address) == wanted, 5, f"{address} sees {wanted}")

    def cleanup(self, *options):
        own_etc = ["unshare", "--mount", "sh", "-c", f'mount --bind {self.etc} /etc && exec "$@"', "-"]
        return self.client_ns.run(
            *own_etc, natives.braid(), "cleanup", "--state-dir",
            self.client.config["security"]["state_dir"], *options).stdout


class HostNetwork(Machines):
    # --- Routes ---

    def test_everything_goes_through_the_tunnel_and_back_again(self):
        self.set_up()
        before = {ns: self.state(ns) for ns in (self.client_ns, self.server_ns)}
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), DIRECT[family])
        self.tunnel.start()
        for family in (4, 6):
            self.eventually_seen_as(self.client_ns, FAR[family], SERVER[family])
        self.assertEqual(seen_as(self.client_ns, "10.50.1.2"), "10.50.1.1", "the LAN stays near")
        self.assertEqual(seen_as(self.client_ns, "fd50:1::2"), "fd50:1::1")
        for daemon in self.tunnel.daemons:
            self.assertEqual(daemon.stop(), [])
        for ns, state in before.items():
            self.assert_as_before(state, ns)

    def test_hosts_behind_a_gateway_use_it(self):
        self.set_up(client={"network": {"nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.host, FAR[4], SERVER[4])
        # Where nothing was forwarded before, what is no tunnel's still is not.
        self.provider.ip("route add 10.50.1.0/24 via 10.20.1.1")
        self.assertEqual(ping(self.provider, "10.50.1.2", wait=1).received, 0)
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_what_is_excluded_and_included_by_name(self):
        self.set_up(client={"network": {"routes": {"default": False, "include": ["10.40.0.0/16"],
                                                   "exclude": ["lan", "10.40.9.0/24"]}}})
        self.far.ip("addr add 10.40.9.2/24 dev provider")
        self.provider.ip("addr add 10.40.9.254/24 dev far")
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertEqual(seen_as(self.client_ns, "10.40.9.2"), DIRECT[4])
        self.assertEqual(seen_as(self.client_ns, FAR[6]), DIRECT[6])

    def test_routes_that_a_network_injects_draw_nothing_out(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        for route in ("0.0.0.0/1", "128.0.0.0/1", "10.40.1.0/24", "10.40.1.2/32"):
            self.client_ns.ip(f"route add {route} via 10.20.1.254")
        time.sleep(0.5)
        self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])

    def test_a_new_lan_stays_out_within_a_second(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.host.ip("addr add 10.51.1.2/24 dev client")
        self.client_ns.ip("addr add 10.51.1.1/24 dev host")
        eventually(lambda: seen_as(self.client_ns, "10.51.1.2", 0.3) == "10.51.1.1", 1,
                   "the new network is near")
        self.client_ns.ip("addr del 10.51.1.1/24 dev host")
        eventually(lambda: "10.51.1.0/24" not in self.client_ns.ip("route show table all").stdout,
                   1, "and no longer")

    def test_a_server_that_never_answers_cuts_nobody_off(self):
        self.set_up()
        self.client.start()
        time.sleep(1)
        self.assertEqual(seen_as(self.client_ns, FAR[4]), DIRECT[4])

    # --- DNS ---

    def test_names_are_looked_up_inside_and_afterwards_outside(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"],
                                                "domains": ["corp.example"]}}})
        path = os.path.join(self.etc, "resolv.conf")
        os.remove(path)
        os.symlink("resolv.real", path)
        with open(os.path.join(self.etc, "resolv.real"), "w", encoding="ascii") as file:
            file.write("nameserver 10.20.1.254\n")
        self.tunnel.start()

        def text():
            with open(path, encoding="ascii") as file:
                return file.read()
        eventually(lambda: "nameserver 10.77.0.1\nsearch corp.example\n" in text(), 3)
        self.assertFalse(os.path.islink(path))
        self.assertEqual(self.client.stop(), [])
        self.assertEqual(os.readlink(path), "resolv.real")
        self.assertEqual(text(), "nameserver 10.20.1.254\n")

    # --- Ends of every kind ---

    def test_after_a_kill_cleanup_brings_all_of_it_back(self):
        self.set_up(client={"network": {"dns": {"servers": ["10.77.0.1"]},
                                        "nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        self.assertNotEqual(self.state(self.client_ns), before)
        self.assertIn("taken back: ", self.cleanup())
        self.assert_as_before(before, self.client_ns)
        self.assertEqual(self.cleanup(), "", "nothing is left to be done")

    def test_a_start_over_leftovers_works(self):
        self.set_up()
        before = self.state(self.client_ns)
        self.tunnel.start()
        for _ in range(2):
            self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
            self.client.kill()
            self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_what_others_made_is_never_touched(self):
        self.set_up()
        self.client_ns.nft("""
            table inet braid_mine {
                chain output { type filter hook output priority 0; accept; }
            }
            table ip nat {
                chain postrouting { type nat hook postrouting priority 100; }
            }""")
        # Like braid's own, but for who made it.
        self.client_ns.ip("rule add priority 31000 not fwmark 0xb7a1 lookup 47009")
        self.client_ns.ip("route add throw 10.50.1.0/24 table 47010")
        with open(os.path.join(self.etc, "resolv.conf.new"), "w", encoding="ascii") as file:
            file.write("mine\n")
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        self.cleanup()
        self.assert_as_before(before, self.client_ns)

    def test_what_others_take_away_comes_back(self):
        self.set_up(client={"network": {"kill_switch": True}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        wanted = self.state(self.client_ns)
        self.client_ns.run("nft", "flush", "ruleset")
        self.client_ns.ip("rule del priority 32000")
        self.client_ns.ip("route flush table 47009")
        eventually(lambda: self.state(self.client_ns) == wanted, 8, "all of it is there again")
        self.assertEqual(self.client.stop(), [])
        self.cleanup("--all")
        self.assert_as_before(before, self.client_ns)

    def test_a_second_uplink_with_a_strict_filter_works(self):
        self.set_up(client={"tunnel": {"paths": [
            {"name": "one", "interface": "provider"}, {"name": "two", "interface": "uplink2"}]}})
        self.lab.link(self.client_ns, "10.21.1.1/24", self.provider, "10.21.1.254/24",
                      name="uplink2")
        self.client_ns.ip("route add default via 10.21.1.254 dev uplink2 metric 2000")
        self.client_ns.sysctl("net.ipv4.conf.uplink2.rp_filter", 1)
        before = self.state(self.client_ns)
        self.tunnel.start()
        eventually(lambda: all(path["state"] == "up" for path in self.client.peer()["paths"]), 5,
                   "both paths are up")
        self.assertEqual(self.client.stop(), [])
        self.assert_as_before(before, self.client_ns)

    def test_a_cleanup_beside_a_daemon_leaves_it_alone(self):
        self.set_up()
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.assertIn("left alone", self.cleanup())
        self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])

    # --- The kill switch ---

    def test_nothing_leaves_beside_the_tunnel_with_the_kill_switch(self):
        self.set_up(client={"network": {"kill_switch": True}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1), "while braid is dead")
        self.assertIn("the kill switch stays on", self.cleanup())
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1), "and after a clean-up")
        self.assertIn("the kill switch is off", self.cleanup("--all"))
        self.assert_as_before(before, self.client_ns)

    def kill_switch(self, verb, check=True):
        return self.client_ns.run(natives.braid(), "kill-switch", verb, "--state-dir",
                                  self.client.config["security"]["state_dir"], check=check)

    def test_the_kill_switch_is_loaded_again_at_boot(self):
        self.set_up(client={"network": {"kill_switch": True}})
        self.assertEqual(self.kill_switch("load").stderr, "")
        self.assertEqual(self.kill_switch("status").stdout, "off\n")
        self.assertEqual(seen_as(self.client_ns, FAR[4]), DIRECT[4], "nothing was kept yet")
        self.tunnel.start()
        self.assertEqual(self.kill_switch("status").stdout, "on: nothing leaves beside braid0\n")
        self.client.kill()
        eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
        # A restart of the machine leaves of the tables nothing, and of the file all.
        self.client_ns.run("nft", "flush", "ruleset")
        told = self.kill_switch("status", check=False)
        self.assertEqual((told.returncode, told.stdout[:8]), (1, "missing:"))
        self.assertEqual(self.kill_switch("load").stderr, "")
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])

    def test_a_damaged_kill_switch_shuts_everything_in(self):
        self.set_up(client={"network": {"kill_switch": True}})
        self.tunnel.start()
        self.client.kill()
        self.client_ns.run("nft", "flush", "ruleset")
        with open(os.path.join(self.client.config["security"]["state_dir"], "kill-switch.json"),
                  "w", encoding="ascii") as file:
            file.write('{"version":')
        told = self.kill_switch("load", check=False)
        self.assertEqual(told.returncode, 1)
        self.assertIn("kill-switch.json: is damaged", told.stderr)
        self.assertIn("nothing at all leaves", told.stderr)
        for family in (4, 6):
            self.assertIsNone(seen_as(self.client_ns, FAR[family], 1))
        self.client.start()
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])


class FaultsOfBringUp(Machines):
    """Killed at every step, and each call of rtnetlink and nftables failing."""

    FULL = {"network": {"dns": {"servers": ["10.77.0.1"]},
                        "nat": [{"source": "10.50.1.0/24", "out": "braid0"}]}}

    def run_with(self, fault):
        """Returns whether it came up, and how many steps there were."""
        count = os.path.join(self.lab.folder, "count")
        self.client.wrap = [*self.own_wrap, "env", f"LD_PRELOAD={natives.path('libfault_at.so')}",
                            f"BRAID_TEST_FAULT={fault}", f"BRAID_TEST_FAULT_COUNT={count}"]
        self.client.start(ready=False)
        process = self.client.process

        def is_up_or_ended():
            return process.poll() is not None or "braid_braid0" in self.client_ns.run(
                "nft", "list", "tables").stdout and self.client.is_established()
        eventually(is_up_or_ended, 10, "it is up or has ended")
        is_up = process.poll() is None
        with open(count, encoding="ascii") as file:
            return is_up, int(file.read())

    def prepare(self):
        self.set_up(client=self.FULL)
        self.client.guarded = False
        self.own_wrap = self.client.wrap
        self.before = self.state(self.client_ns)
        self.server.start()

    def test_killed_at_every_step(self):
        self.prepare()
        _, steps = self.run_with("count")
        self.assertEqual(self.client.stop(), [])
        _, steps = self.run_with("kill:100000")
        self.assertEqual(self.client.stop(), [])
        for step in range(1, steps + 1):
            self.run_with(f"kill:{step}")
            self.client.kill()
            eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
            self.cleanup()
            self.assert_as_before(self.before, self.client_ns, f"after a kill at step {step}")

    def test_every_call_fails_once(self):
        self.prepare()
        _, calls = self.run_with("count")
        self.assertEqual(self.client.stop(), [])
        for call in range(1, calls + 1):
            is_up, _ = self.run_with(f"fail:{call}")
            if is_up:
                self.client.stop()
            else:
                self.client.kill()
            eventually(lambda: "braid0" not in self.client_ns.devices(), 2)
            self.cleanup()
            self.assert_as_before(self.before, self.client_ns, f"after call {call} failed")

