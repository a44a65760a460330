"""`braid bench`: each measurement runs, tells what it promises, and leaves nothing behind.

    client ──veth── server          of `bench peer`; the others make machines of their own
      └ 10.77.0.2 ═ braid0 ═ 10.77.0.1 ┘
"""
import glob
import json
import os
import signal
import socket
import tempfile
import time

import natives
from lab import eventually, run
from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import ping

MEASURE_PORT = 7799
MEASUREMENTS = ["idle", "tcp up", "tcp down", "tcp both", "udp both"]


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(each) for each in file.read().split()]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Bench(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        # What others leave there at the same time is none of this test's business.
        self.folder = tempfile.mkdtemp(dir=self.lab.folder, prefix="t")
        self.environment = {**os.environ, "TMPDIR": self.folder}

    def bench(self, *arguments, check=True):
        return run(natives.braid(), "bench", *arguments, check=check, env=self.environment,
                   timeout=120)

    def start_bench(self, *arguments):
        command = ["env", "TMPDIR=" + self.folder, natives.braid(), "bench", *arguments]
        ns = self.lab.namespace("bystander")
        return ns, ns.start("bench", *command)

    def assert_nothing_is_left(self):
        self.assertEqual(glob.glob(self.folder + "/*"), [])

    def assert_positive(self, figures, *keys):
        for figure in figures:
            for key in keys:
                self.assertGreater(figure[key], 0, figure)

    def test_wrong_arguments_are_named(self):
        for arguments, text in ((("nosuch",), '"nosuch" is not a command of "bench"'),
                                (("crypto", "--seconds", 0), '"0" is not a number from 0.001'),
                                (("peer", "hub", "--rate", "fast"), '"fast" is not a number'),
                                (("tunnel", "--cipher", "rot13"), "rot13 not in")):
            with self.subTest(arguments=arguments):
                done = self.bench(*arguments, check=False)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(text, done.stderr)

    # --- crypto ---

    def test_crypto(self):
        report = json.loads(self.bench("crypto", "--seconds", "0.005", "--json").stdout)
        cpus = report["cpus"]
        self.assertEqual(cpus, len(os.sched_getaffinity(0)))
        figures = report["figures"]
        self.assert_positive(figures, "seal_ns", "open_ns", "seal_bytes_per_s",
                             "open_bytes_per_s")
        self.assertEqual({each["threads"] for each in figures}, {1, cpus})
        self.assertLessEqual({64, 256, 512, 1420}, {each["bytes"] for each in figures})
        self.assertGreater(max(each["bytes"] for each in figures), 8000)
        backends = {(each["cipher"], each["backend"]) for each in figures}
        self.assertIn(("chacha20-poly1305", "sodium"), backends)
        for choice in report["auto"]:
            self.assertIn(choice["cipher"], ("aes-256-gcm", "chacha20-poly1305"))
            self.assertTrue(choice["why"])
            if choice["backend"] != "none":
                self.assertIn((choice["cipher"], choice["backend"]), backends)

    def test_crypto_for_people(self):
        shown = self.bench("crypto", "--seconds", "0.002").stdout
        for text in ("chacha20-poly1305, sodium", "seal ns", "GB/s", "takes here"):
            self.assertIn(text, shown)
        self.assertNotIn("\x1b", shown)

    # --- device ---

    def test_device(self):
        before = run("ip", "-o", "link").stdout
        report = json.loads(self.bench("device", "--seconds", "0.05", "--json").stdout)
        self.assertEqual({(each["offload"], each["way"], each["backend"])
                          for each in report["tun"]},
                         {(offload, way, io) for offload in ("none", "CSUM", "TSO", "USO")
                          for way in ("read", "write") for io in ("io_uring", "epoll")})
        self.assertEqual({(each["link"], each["mode"], each["backend"])
                          for each in report["udp"]},
                         {(link, mode, io) for link in ("loopback", "veth")
                          for mode in ("plain", "sendmmsg", "GSO", "GSO, GRO")
                          for io in ("io_uring", "epoll")})
        # Everything but USO is older than any kernel that this runs on.
        measured = [each for each in report["tun"] if "refused" not in each]
        self.assertLessEqual({"none", "CSUM", "TSO"}, {each["offload"] for each in measured})
        self.assert_positive(measured, "packets_per_s", "bytes_per_s", "packet_bytes")
        self.assert_positive([each for each in report["udp"] if "refused" not in each],
                             "sent_per_s", "received_per_s", "bytes_per_s")
        for figure in measured:
            self.assertEqual(figure["packet_bytes"] > 1420, figure["offload"] in ("TSO", "USO"))
        self.assertGreaterEqual(report["max_gso_datagrams"], 64)
        self.assertEqual(run("ip", "-o", "link").stdout, before)

    @each(what=("device", "tunnel"))
    def test_who_is_not_root_is_told(self, what):
        os.chmod(self.lab.folder, 0o755)
        done = run("setpriv", "--reuid", 65534, "--regid", 65534, "--clear-groups",
                   "--bounding-set", "-all", natives.braid(), "bench", what, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("root", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    # --- tunnel ---

    def test_tunnel(self):
        done = self.bench("tunnel", "--rounds", 1, "--seconds", 1, "--json", "--cipher",
                          "chacha20-poly1305", "--io", "epoll", "--workers", 1)
        report = json.loads(done.stdout)
        self.assertEqual((report["cipher"], report["io"], report["workers"]),
                         ("chacha20-poly1305", "epoll", 1))
        figures = {each["name"]: each for each in report["figures"]}
        self.assertLessEqual({"ping idle", "tcp up", "tcp down", "tcp up, 4 flows",
                              "tcp both ways, sum", "ping under tcp up",
                              "udp 64 bytes up, received"}, set(figures))
        for figure in figures.values():
            self.assertEqual(len(figure["tunnel"]["samples"]), 1)
            self.assertEqual(len(figure["bare"]["samples"]), 1)
            self.assertGreater(figure["tunnel"]["median"], 0, figure)
            self.assertGreater(figure["bare"]["median"], 0, figure)
            self.assertGreater(figure["ratio"]["median"], 0, figure)
        self.assert_nothing_is_left()

    @each(how=(signal.SIGINT, signal.SIGTERM))
    def test_a_tunnel_that_is_interrupted_leaves_nothing(self, how):
        namespace, process = self.start_bench("tunnel", "--seconds", 30)
        children = eventually(lambda: len(children_of(process.pid)) == 2
                              and children_of(process.pid), 10, "both daemons run")
        eventually(lambda: glob.glob(self.folder + "/*/near.sock"), 10, "they have come up")
        time.sleep(0.5)  # in the middle of it
        process.send_signal(how)
        self.assertEqual(process.wait(10), 128 + how)
        self.assertIn("nothing is left behind", process.err())
        self.assertFalse(any(is_alive(child) for child in children))
        self.assertEqual(namespace.devices(), {"lo"})
        self.assert_nothing_is_left()

    def test_a_tunnel_whose_daemon_dies_says_so(self):
        _, process = self.start_bench("tunnel", "--seconds", 30)
        children = eventually(lambda: len(children_of(process.pid)) == 2
                              and children_of(process.pid), 10, "both daemons run")
        eventually(lambda: glob.glob(self.folder + "/*/near.sock"), 10, "they have come up")
        os.kill(children[0], signal.SIGKILL)
        self.assertEqual(process.wait(10), 1)
        self.assertIn("has died", process.err())
        self.assertFalse(any(is_alive(child) for child in children))
        self.assert_nothing_is_left()

    def test_daemons_do_not_outlive_a_bench_that_is_killed(self):
        namespace, process = self.start_bench("tunnel", "--seconds", 30)
        children = eventually(lambda: len(children_of(process.pid)) == 2
                              and children_of(process.pid), 10, "both daemons run")
        process.kill()
        eventually(lambda: not any(is_alive(child) for child in children), 5, "they are gone")
        # The next one sweeps up the folder, once it is clear that nobody is just making it.
        folder, = glob.glob(self.folder + "/*")
        past = time.time() - 120
        os.utime(folder, (past, past))
        process = namespace.start("bench2", "env", "TMPDIR=" + self.folder, natives.braid(),
                                  "bench", "tunnel", "--seconds", 30)
        eventually(lambda: not os.path.exists(folder), 10, "it is swept up")
        process.stop(signal.SIGTERM)
        self.assert_nothing_is_left()

    # --- peer ---

    def peer_command(self, daemon, name, *arguments):
        return daemon.ns.command(natives.braid(), "bench", "peer", name, "--socket",
                                 daemon.socket_path, "--seconds", 1, "--json", *arguments)

    def bench_peer(self, daemon, name, *arguments):
        done = run(*self.peer_command(daemon, name, *arguments), timeout=60)
        report = json.loads(done.stdout)
        return report, {each["name"]: each for each in report["measurements"]}, done.stderr

    def failed_peer(self, daemon, name, *arguments):
        done = run(*self.peer_command(daemon, name, *arguments), check=False, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        return done.stderr

    def start_peer(self, daemon, name, *arguments):
        """One that lasts long enough for what happens to it meanwhile."""
        return daemon.ns.start("peer", natives.braid(), "bench", "peer", name,
                               "--socket", daemon.socket_path, *arguments)

    def assert_cut_short_in_tcp_up(self, report):
        """Of a measurement of 4 s."""
        idle, tcp = report["measurements"]
        self.assertEqual((idle["name"], idle["interrupted"]), ("idle", False))
        self.assertEqual((tcp["name"], tcp["interrupted"]), ("tcp up", True))
        self.assertLess(tcp["seconds"], 4)
        self.assertGreater(tcp["up"]["mbps"], 0)

    def test_peer_from_both_sides(self):
        tunnel = Tunnel(self.lab).start()
        for daemon, name, address in ((tunnel.client, "hub", INNER[4][1]),
                                      (tunnel.server, "branch", INNER[4][0])):
            with self.subTest(name):
                report, measured, progress = self.bench_peer(daemon, name)
                self.assertEqual((report["peer"], report["address"], report["device"]),
                                 (name, address, "braid0"))
                self.assertEqual(list(measured), MEASUREMENTS)
                for each_name, each in measured.items():
                    self.assertIn(each_name, progress)
                    self.assertGreater(each["probes_answered"], 0, each)
                    self.assertGreater(each["rtt_p50_ms"], 0)
                    self.assertLessEqual(each["rtt_p50_ms"], each["rtt_p99_ms"])
                    for way in ("up", "down"):
                        wanted = each_name.endswith((way, "both"))
                        self.assertEqual(each[way] is not None, wanted, each)
                        if wanted:
                            self.assertGreater(each[way]["mbps"], 0, each)
                for way in ("up", "down"):
                    udp = measured["udp both"][way]
                    self.assertEqual(udp["datagrams_received"] + udp["datagrams_lost"],
                                     udp["datagrams_sent"])

    def test_peer_over_ipv6_at_an_address_that_is_named(self):
        tunnel = Tunnel(self.lab).start()
        report, measured, _ = self.bench_peer(tunnel.client, "hub", "--address", INNER[6][1],
                                              "--flows", 3)
        self.assertEqual(report["address"], INNER[6][1])
        self.assertGreater(measured["tcp both"]["down"]["mbps"], 0)

    def test_loss_is_shown_as_loss(self):
        tunnel = Tunnel(self.lab).start()
        # Every fourth of the load's datagrams up, inside the tunnel; nothing else.
        tunnel.client_ns.nft("table inet lossy { chain out { type filter hook output priority 0; "
                             "oifname braid0 udp dport 7799 udp length > 400 "
                             "numgen inc mod 4 == 0 drop; }; }")
        _, measured, progress = self.bench_peer(tunnel.client, "hub", "--rate", 4, "--size", 800)
        udp = measured["udp both"]
        self.assertAlmostEqual(udp["up"]["loss"], 0.25, delta=0.02)
        self.assertEqual(udp["down"]["loss"], 0, udp)
        lines = [line for line in progress.splitlines() if line.startswith("udp both")]
        self.assertTrue(lines)
        self.assertFalse(any(" 0 %" in line for line in lines), lines)

    def test_who_cannot_be_measured_is_told_why(self):
        tunnel = Tunnel(self.lab, server={"performance": {"measure_port": 0}}).start()
        self.assertIn("measure_port", self.failed_peer(tunnel.client, "hub"))
        self.assertIn("no peer of this name", self.failed_peer(tunnel.client, "nobody"))
        self.assertIn("--port", self.failed_peer(tunnel.server, "branch"))
        self.assertIn("no IP address", self.failed_peer(tunnel.client, "hub", "--address", "x"))
        # The client's own port is on, wherever the server's is.
        self.bench_peer(tunnel.server, "branch", "--port", MEASURE_PORT)
        tunnel.server_ns.nft("table inet wall { chain in { type filter hook input priority 0; "
                             "iifname braid0 tcp dport 7799 drop; }; }")
        self.assertIn("firewall", self.failed_peer(tunnel.client, "hub"))
        tunnel.server.stop()
        eventually(lambda: not tunnel.client.is_established(), 5, "the client has noticed")
        self.assertIn("not established", self.failed_peer(tunnel.client, "hub"))

    @each(how=(signal.SIGINT, signal.SIGTERM))
    def test_who_interrupts_is_shown_what_was_measured_so_far(self, how):
        tunnel = Tunnel(self.lab).start()
        process = self.start_peer(tunnel.client, "hub", "--seconds", 4, "--json")
        eventually(lambda: "tcp up " in process.err(), 10, "it is in the second measurement")
        process.send_signal(how)
        self.assertEqual(process.wait(5), 128 + how)
        self.assertIn("ended by", process.err().splitlines()[-1])
        report = json.loads(process.out())
        self.assert_cut_short_in_tcp_up(report)
        self.assertIn("ended by", report["error"])
        # Nothing is left of it at the other end either.
        eventually(lambda: self.stall(tunnel), 10, "others may measure", 0.3)

    @each(how=(signal.SIGTERM, signal.SIGKILL))
    def test_who_loses_the_other_end_is_shown_what_was_measured_so_far(self, how):
        tunnel = Tunnel(self.lab).start()
        process = self.start_peer(tunnel.client, "hub", "--seconds", 4, "--json")
        eventually(lambda: "tcp up " in process.err(), 10, "it is in the second measurement")
        if how == signal.SIGTERM:
            self.assertEqual(tunnel.server.stop(), [])
        else:
            tunnel.server.kill()
        self.assertEqual(process.wait(20), 1)
        report = json.loads(process.out())
        self.assert_cut_short_in_tcp_up(report)
        for text in ('"hub" broke off', "the tunnel is down", "measure again"):
            self.assertIn(text, report["error"])
        self.assertEqual(process.err().splitlines()[-1], "braid bench peer: " + report["error"])

    def test_who_loses_the_daemon_here_is_shown_what_was_measured_so_far(self):
        tunnel = Tunnel(self.lab).start()
        process = self.start_peer(tunnel.server, "branch", "--seconds", 4)
        eventually(lambda: "tcp up " in process.out(), 10, "it is in the second measurement")
        self.assertEqual(tunnel.server.stop(), [])
        self.assertEqual(process.wait(20), 1)
        progress, shown = process.out().split("\n\n")
        self.assertIn("tcp up ", progress)
        self.assertIn("peer branch at", shown)
        self.assertRegex(shown, r"tcp up, \d\.\d s +\d")
        for text in ('"branch" broke off', "no daemon runs", "braid run"):
            self.assertIn(text, process.err())

    def test_it_is_reached_through_the_tunnel_only(self):
        tunnel = Tunnel(self.lab).start()
        # Beside the tunnel, at the outer address and at the inner one.
        outside = self.lab.namespace("outside")
        self.lab.link(outside, "10.20.2.1/24", tunnel.server_ns, "10.20.2.2/24")
        outside.ip("route add 10.77.0.0/24 via 10.20.2.2")
        for namespace, address in ((tunnel.client_ns, "10.20.1.2"), (outside, INNER[4][1])):
            with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(2)
                self.assertRaises(OSError, client.connect, (address, MEASURE_PORT))
        # From the same machine the kernel takes the way over its loopback: no word then.
        for daemon, address in zip(tunnel.daemons, INNER[4]):
            with daemon.ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect((address, MEASURE_PORT))
                try:
                    client.sendall(self.request())
                    self.assertEqual(client.recv(100), b"")
                except ConnectionError:
                    pass

    def connect(self, tunnel):
        client = tunnel.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(10)
        client.connect((INNER[4][1], MEASURE_PORT))
        return client

    def request(self, **changes):
        return json.dumps({"v": 1, "type": "request", "load": "tcp", "up": True, "down": True,
                           "seconds": 60, "flows": 16, "datagram_bytes": 64, "rate_mbps": 0,
                           "udp_port": 9, **changes}).encode() + b"\n"

    def test_who_means_no_good_does_not_harm_the_daemon(self):
        tunnel = Tunnel(self.lab).start()
        server = tunnel.server
        before = server.process.resident_bytes()
        for data in (b"\n", b"hello\n", b"\xff\x00\n", b"[" * 2000 + b"\n", b"x" * 100000,
                     b'{"v":1,"type":"go"}\n', self.request(seconds=61),
                     self.request(flows=1000), self.request(datagram_bytes=1 << 40),
                     self.request() + self.request()):
            with self.subTest(data=data[:40]):
                client = self.connect(tunnel)
                try:
                    client.sendall(data)
                    answer = json.loads(client.makefile().readline())
                    self.assertEqual(answer["type"], "refused")
                except ConnectionError:
                    pass  # it did not want to read all of that
        # Many that say nothing, or half of something; then one that runs and does not read.
        half_open = [self.connect(tunnel) for _ in range(60)]
        for client in half_open[::2]:
            client.sendall(b'{"v":1,"ty')
        self.assertIsNotNone(server.try_status())
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
        for client in half_open:
            client.close()
        self.assertLess(server.process.resident_bytes() - before, 8 << 20)
        eventually(lambda: self.stall(tunnel), 10, "its measurement is taken", 0.3)
        cpu = server.process.cpu_seconds()
        self.assertIn("refuses to measure", self.failed_peer(tunnel.client, "hub"))
        time.sleep(1)
        self.assertLess(server.process.cpu_seconds() - cpu, 0.5)
        self.assertIsNotNone(server.try_status())
        # It is given up in time, and then somebody else is served.
        eventually(lambda: run(*self.peer_command(tunnel.client, "hub"), check=False,
                               timeout=60).returncode == 0, 30, "others are served", 0.5)

    def stall(self, tunnel):
        """A measurement that is asked for and then never begun. Whether it was taken."""
        client = self.connect(tunnel)
        client.sendall(self.request())
        try:
            return json.loads(client.makefile().readline())["type"] == "accepted"
        except (ValueError, OSError):
            return False

    def test_a_daemon_that_is_stopped_does_not_wait_for_a_measurement(self):
        tunnel = Tunnel(self.lab).start()
        process = self.start_peer(tunnel.client, "hub", "--seconds", 60)
        eventually(lambda: "idle" in process.out(), 10, "it measures")
        started = time.monotonic()
        self.assertEqual(tunnel.server.stop(), [])
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(process.wait(20), 1)
        self.assertIn("broke off", process.err())
