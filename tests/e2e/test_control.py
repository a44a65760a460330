"""The control socket and the command line of a running daemon; secrets stay where they are.

    client ──veth── server
"""
import base64
import json
import os
import socket
import stat
import time

import natives
from daemon import Identity
from lab import eventually, run
from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import flood, ping


def one_line(**members):
    return json.dumps(members).encode() + b"\n"


class Control(LabTest):
    beside_others = True

    def start_server(self, **options):
        self.tunnel = Tunnel(self.lab, **options)
        self.tunnel.server.start()
        return self.tunnel.server

    def error_of(self, daemon, data):
        return json.loads(daemon.call_raw(data))["error"]

    def test_only_the_owner_may_speak_to_it(self):
        daemon = self.start_server()
        mode = os.stat(daemon.socket_path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o600)
        # Reachable but for the mode.
        os.chmod(self.lab.folder, 0o755)
        done = run("setpriv", "--reuid", 65534, "--regid", 65534, "--clear-groups", natives.braid(),
                   "status", "--socket", daemon.socket_path, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_status_has_what_is_promised(self):
        tunnel = Tunnel(self.lab).start()
        ping(tunnel.client_ns, INNER[4][1])
        for daemon, remote in ((tunnel.client, "10.20.1.2:7700"), (tunnel.server, "10.20.1.1:")):
            status = daemon.status()
            self.assertEqual(status["state"], "running")
            self.assertTrue(status["version"])
            self.assertIsInstance(status["drops"], dict)
            peer, = status["peers"]
            self.assertTrue(peer["established"])
            self.assertEqual(peer["cipher"], "aes-256-gcm")
            self.assertLess(peer["last_handshake_s"], 10)
            self.assertGreaterEqual(peer["rx_bytes"], 3 * 84)
            self.assertGreaterEqual(peer["tx_bytes"], 3 * 84)
            path, = peer["paths"]
            self.assertEqual(path["state"], "up")
            self.assertTrue(path["remote"].startswith(remote))
            for name in ("name", "local", "rtt_ms", "loss", "rx_bytes", "tx_bytes", "rate_mbps"):
                self.assertIn(name, path)
        self.assertEqual(tunnel.client.peer()["public_key"], tunnel.hub.public)
        shown = tunnel.client.shown_status()
        self.assertIn("established", shown)
        self.assertNotIn("\x1b", shown)

    def test_what_the_devices_queue_had_no_room_for_is_counted(self):
        tunnel = Tunnel(self.lab).start()
        self.assertEqual(tunnel.client.drops()["tun_queue_full"], 0)
        tunnel.client_ns.ip("link set braid0 txqueuelen 1")
        flood(tunnel.server_ns, tunnel.client_ns, INNER[4][1], seconds=0.2)
        link, = json.loads(tunnel.client_ns.ip("-s -j link show dev braid0").stdout)
        dropped = link["stats64"]["tx"]["dropped"]
        self.assertGreater(dropped, 0)
        self.assertEqual(tunnel.client.drops()["tun_queue_full"], dropped)
        self.assertRegex(tunnel.client.shown_status(), rf"tun_queue_full +{dropped:,}\n")
        self.assertEqual(tunnel.server.drops()["tun_queue_full"], 0)

    def test_a_peer_that_is_not_there_is_down(self):
        tunnel = Tunnel(self.lab)
        tunnel.client.start()
        peer = tunnel.client.peer()
        self.assertFalse(peer["established"])
        self.assertNotEqual(peer["paths"][0]["state"], "up")

    def test_stop_leaves_nothing(self):
        tunnel = Tunnel(self.lab).start()
        before = tunnel.client_ns.devices() - {"braid0"}
        done = run(natives.braid(), "stop", "--socket", tunnel.client.socket_path)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(tunnel.client.process.wait(2), 0)
        eventually(lambda: tunnel.client_ns.devices() == before, 1, "the device is gone")
        self.assertFalse(os.path.exists(tunnel.client.socket_path))
        # The other end knows at once.
        eventually(lambda: not tunnel.server.is_established(), 1, "the server has noticed")
        routes = tunnel.client_ns.ip("route").stdout + tunnel.client_ns.ip("-6 route").stdout
        self.assertNotIn("braid0", routes)

    def test_it_can_be_started_right_after_it_was_stopped(self):
        tunnel = Tunnel(self.lab).start()
        for number in range(5):
            for daemon in tunnel.daemons:
                run(natives.braid(), "stop", "--socket", daemon.socket_path)
                self.assertEqual(daemon.process.wait(2), 0)
                daemon.start()
        tunnel.wait()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    @each(number=(2, 15))
    def test_signals_stop_it(self, number):
        daemon = self.start_server()
        self.assertEqual(daemon.process.stop(number), 0)

    def test_stop_and_status_without_a_daemon(self):
        for verb in ("stop", "status"):
            done = run(natives.braid(), verb, "--socket", self.lab.folder + "/none.sock",
                       check=False)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_hostile_requests_get_typed_errors(self):
        daemon = self.start_server()
        deep = b'{"v":1,"verb":"status","params":' + b'{"a":' * 40 + b"1" + b"}" * 41 + b"\n"
        cases = {
            b"\n": "bad_json",
            b"hello\n": "bad_json",
            b'{"v":1,"verb":"status"\n': "bad_json",
            b"\xff\xfe\x00\n": "bad_json",
            b'{"v":1,"verb":"st\x00atus"}\n': "bad_json",
            b'{"v":1,"verb":"\xed\xa0\x80"}\n': "bad_json",
            b"[]\n": "bad_request",
            b"null\n": "bad_request",
            b'"status"\n': "bad_request",
            b"{}\n": "bad_version",
            one_line(v=2, verb="status"): "bad_version",
            one_line(v="1", verb="status"): "bad_version",
            one_line(v=1): "bad_request",
            one_line(v=1, verb=7): "bad_request",
            one_line(v=1, verb=""): "bad_request",
            one_line(v=1, verb="x" * 65): "bad_request",
            one_line(v=1, verb="status", more=1): "bad_request",
            one_line(v=1, id={}, verb="status"): "bad_request",
            one_line(v=1, verb="status", params=[]): "bad_params",
            one_line(v=1, verb="explode"): "unknown_verb",
            deep: "too_deep",
            b"[" * 60000 + b"\n": "too_deep",
            b'{"v":1,"verb":"status","id":"' + b"x" * 70000 + b'"}\n': "too_large",
        }
        for request, code in cases.items():
            with self.subTest(request=request[:60]):
                self.assertEqual(self.error_of(daemon, request)["code"], code)
        self.assertEqual(daemon.status()["state"], "running")
        self.assertLess(len(daemon.log().splitlines()), 20)

    def test_who_says_nothing_or_too_much_does_not_hinder_others(self):
        daemon = self.start_server()
        silent = []
        for number in range(40):
            client = socket.socket(socket.AF_UNIX)
            client.connect(daemon.socket_path)
            client.sendall(b'{"v":1' if number % 2 else b"")
            silent.append(client)
        before = daemon.process.resident_bytes()
        flood = socket.socket(socket.AF_UNIX)
        flood.connect(daemon.socket_path)
        flood.settimeout(1)
        try:
            for _ in range(300):
                flood.sendall(b"x" * 65536)
        except OSError:
            pass  # it was cut off
        self.assertEqual(daemon.status()["state"], "running")
        self.assertLess(daemon.process.resident_bytes() - before, 4 << 20)
        for client in silent + [flood]:
            client.close()
        cpu = daemon.process.cpu_seconds()
        time.sleep(0.5)
        self.assertLess(daemon.process.cpu_seconds() - cpu, 0.2)

    def test_more_clients_than_it_serves_are_told(self):
        daemon = self.start_server()
        clients = []
        for _ in range(70):
            client = socket.socket(socket.AF_UNIX)
            client.connect(daemon.socket_path)
            client.settimeout(1)
            clients.append(client)
        last = json.loads(clients[-1].makefile().readline())
        self.assertEqual(last["error"]["code"], "too_many_clients")
        for client in clients:
            client.close()
        eventually(daemon.try_status, 2, "it answers again")

    @each(format=("text", "json"))
    def test_secrets_are_never_told(self, format):
        tunnel = Tunnel(self.lab, both={"log": {"level": "debug", "format": format}})
        psk = Identity(self.lab, "psk")
        for daemon in tunnel.daemons:
            daemon.config["tunnel"]["peers"][0]["preshared_key_file"] = psk.file
        tunnel.start()
        ping(tunnel.client_ns, INNER[4][1])
        told = "".join(json.dumps(daemon.status()) + daemon.log() for daemon in tunnel.daemons)
        self.assertEqual([daemon.stop() for daemon in tunnel.daemons], [[], []])
        told += "".join(daemon.all_logs() for daemon in tunnel.daemons)
        for identity in (tunnel.hub, tunnel.branch, psk):
            secret = base64.b64decode(identity.private)
            for form in (identity.private, identity.private.rstrip("="), secret.hex(),
                         secret[:16].hex()):
                self.assertNotIn(form.lower(), told.lower())
        if format == "json":
            for line in tunnel.client.all_logs().split("summary:")[0].splitlines():
                self.assertLessEqual({"time", "level", "message"}, set(json.loads(line)))

    def test_a_state_folder_that_cannot_be_written_is_told_of(self):
        tunnel = Tunnel(self.lab)
        folder = os.path.join(self.lab.folder, "file", "state")
        tunnel.client.config["security"]["state_dir"] = folder
        with open(os.path.dirname(folder), "w", encoding="ascii"):
            pass
        tunnel.start()
        self.assertTrue(any(folder in each for each in tunnel.client.status()["warnings"]),
                        tunnel.client.status()["warnings"])

    def test_an_idle_daemon_uses_next_to_nothing(self):
        tunnel = Tunnel(self.lab).start()
        time.sleep(1)
        before = [daemon.process.cpu_seconds() for daemon in tunnel.daemons]
        time.sleep(5)
        for daemon, used in zip(tunnel.daemons, before):
            # It is counted in hundredths.
            self.assertLess(daemon.process.cpu_seconds() - used, 0.025)
            self.assertLess(daemon.process.resident_bytes(), 40 << 20)

    def test_the_environment_overrides_the_file(self):
        tunnel = Tunnel(self.lab)
        tunnel.server.wrap = ["env", "BRAID_NETWORK__DEVICE=other0", "BRAID_NETWORK__MTU=1333"]
        tunnel.server.start()
        self.assertIn("other0", tunnel.server_ns.devices())
        self.assertEqual(tunnel.server.status()["network"]["mtu"], 1333)
