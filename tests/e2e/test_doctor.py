"""What braid doctor finds on a machine, and on the way to a server.

    client ──veth── server
"""
import json
import os
import shutil
import socket
import threading

import natives
from daemon import Identity
from lab import eventually, run
from lab_test import LabTest
from topology import Tunnel


class Doctor(LabTest):
    beside_others = True

    def look(self, daemon, wrap=()):
        """The checks by name, and the exit code."""
        done = daemon.ns.run(*wrap, natives.braid(), "doctor", "--json", "--config",
                             daemon.config_path, check=False)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 1 if report["failed"] else 0)
        self.assertEqual(report["failed"],
                         sum(check["status"] == "fail" for check in report["checks"]))
        return {check["name"]: check for check in report["checks"]}

    def assert_fails(self, checks, name, found, advice):
        self.assertEqual(checks[name]["status"], "fail", checks[name])
        self.assertIn(found, checks[name]["found"])
        self.assertIn(advice, checks[name]["advice"])

    def written(self, tunnel):
        """The configurations are there, and nothing runs."""
        for daemon in tunnel.daemons:
            daemon.start()
            self.assertEqual(daemon.stop(), [])
        return tunnel

    def test_a_machine_alone(self):
        done = run(natives.braid(), "doctor", check=False)
        for name in ("tun device", "io_uring", "nftables", "rules", "synchronised", "workers"):
            self.assertRegex(done.stdout, rf"(?m)^  (ok  |warn|FAIL|\?   )  {name} ")
        self.assertLessEqual(max(map(len, done.stdout.splitlines())), 80)
        self.assertEqual(done.stderr, "")
        # What this very test run needs is there.
        self.assertRegex(done.stdout, r"ok    tun ")
        self.assertRegex(done.stdout, r"ok    nftables ")

    def test_what_it_tries_leaves_nothing(self):
        ns = self.lab.namespace("alone")
        before = ns.devices(), ns.ip("rule").stdout, ns.run("nft", "list", "ruleset").stdout
        ns.run(natives.braid(), "doctor", check=False)
        self.assertEqual(
            (ns.devices(), ns.ip("rule").stdout, ns.run("nft", "list", "ruleset").stdout), before)

    def test_a_user_is_told_what_cannot_be_looked_at(self):
        # Wherever the build is, it can be run from here.
        program = shutil.copy(natives.braid(), self.lab.folder)
        os.chmod(self.lab.folder, 0o755)
        user = ["setpriv", "--reuid", 65534, "--regid", 65534, "--clear-groups", program, "doctor"]
        done = run(*user, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"(?m)^  \?     rights ")
        self.assertIn("sudo braid doctor", done.stdout)
        self.assertIn("could not be looked at", done.stdout)
        # Nor can this user read the keys of a configuration or speak to its daemon.
        tunnel = Tunnel(self.lab).start()
        os.chmod(tunnel.client.config_path, 0o644)
        done = tunnel.client_ns.run(*user, "--config", tunnel.client.config_path, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        for name in ("file", "state folder", "daemon"):
            self.assertRegex(done.stdout, rf"(?m)^  \?     {name} ")

    def test_both_ends_of_a_tunnel_that_runs(self):
        tunnel = Tunnel(self.lab).start()
        checks = {}

        def is_up():  # a path is told up a moment after the session
            checks.update(self.look(tunnel.client))
            return checks["default"]["status"] == "ok"
        eventually(is_up, 20, "the path is up")
        self.assertIn("runs on braid0", checks["daemon"]["found"])
        self.assertEqual(checks["device"]["status"], "ok")
        self.assertIn("packets of 1432", checks["default mtu"]["found"])
        checks = self.look(tunnel.server)
        self.assertEqual(checks["port 7700"]["status"], "ok")
        self.assertIn("1 of 1", checks["peers"]["found"])

    def test_the_server_is_asked_where_no_daemon_runs(self):
        tunnel = self.written(Tunnel(self.lab))
        tunnel.server.start()
        checks = self.look(tunnel.client)
        self.assertEqual(checks["default"]["status"], "ok", checks["default"])
        self.assertIn("shakes hands", checks["default"]["found"])
        # The client still gets its session afterwards: the counter has risen on disk.
        tunnel.client.start()
        tunnel.wait()

    def test_a_server_that_is_not_there(self):
        tunnel = self.written(Tunnel(self.lab))
        self.assert_fails(self.look(tunnel.client), "default", "nothing listens",
                          "start the server")
        tunnel.server_ns.nft("table inet t { chain c { type filter hook input priority 0; "
                             "udp dport 7700 drop; }; }")
        self.assert_fails(self.look(tunnel.client), "default", "no answer from 10.20.1.2",
                          "firewalls")

    def test_a_client_that_the_server_does_not_know(self):
        tunnel = self.written(Tunnel(self.lab))
        tunnel.server.start()
        stranger = Identity(self.lab, "stranger")
        os.replace(stranger.file, tunnel.branch.file)
        self.assert_fails(self.look(tunnel.client), "default", "no answer", "braid pubkey")

    def test_what_is_in_the_way_on_this_machine(self):
        tunnel = self.written(Tunnel(self.lab))
        tunnel.client_ns.ip("tuntap add braid0 mode tun")
        tunnel.client_ns.ip("addr add 10.77.0.99/25 dev server")
        tunnel.client_ns.ip("link set server mtu 1300")
        checks = self.look(tunnel.client)
        self.assert_fails(checks, "device", "braid0 exists", "ip link del braid0")
        self.assert_fails(checks, "addresses", "10.77.0.0/25 of server", "other inner addresses")
        self.assert_fails(checks, "default mtu", "1300", "1280")
        with tunnel.server_ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("0.0.0.0", 7700))
            done = tunnel.server_ns.run(natives.braid(), "doctor", "--config",
                                        tunnel.server.config_path, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stdout, r"FAIL  port 7700 +UDP 0\.0\.0\.0:7700 is in use")
            self.assertIn("ss -ulpn", done.stdout)

    def test_mistakes_of_the_configuration(self):
        tunnel = self.written(Tunnel(self.lab))
        os.chmod(tunnel.branch.file, 0o644)
        self.assert_fails(self.look(tunnel.client), "file", "private_key_file", "braid check")
        with open(tunnel.client.config_path, "w", encoding="ascii") as file:
            file.write('{"mode": "both"}')
        self.assert_fails(self.look(tunnel.client), "file", "", "braid check")

    def test_resolvers_behind_the_tunnel_are_asked(self):
        tunnel = Tunnel(self.lab, client={"network": {"dns": {
            "servers": ["10.77.0.1"], "domains": ["corp.example"]}}})
        # Nothing of the machine that runs the tests is changed.
        tunnel.client.wrap = ["unshare", "--mount", "sh", "-c",
                              f"cp /etc/resolv.conf {self.lab.folder}/resolv.conf; mount --bind "
                              f"{self.lab.folder}/resolv.conf /etc/resolv.conf; exec \"$@\"", "sh"]
        tunnel.start()
        self.assert_fails(self.look(tunnel.client), "dns 10.77.0.1", "nothing listens", "resolver")
        with tunnel.server_ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
            resolver.bind(("10.77.0.1", 53))

            def answer():
                query, client = resolver.recvfrom(512)
                resolver.sendto(query[:2] + b"\x81\x85" + query[4:], client)  # refused
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            self.assertEqual(self.look(tunnel.client)["dns 10.77.0.1"]["status"], "ok")
            thread.join(5)
