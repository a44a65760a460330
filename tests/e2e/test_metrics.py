"""Metrics as Prometheus takes them, and health as monitoring does, of daemons with real traffic.

    client ══ one or two links ══ server
"""
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import time

import natives
from bond import Bond
from lab import eventually, run
from lab_test import LabTest
from topology import INNER, Tunnel
from traffic import iperf, ping

OK, DEGRADED, FAILED, NO_ANSWER = range(4)
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scrape(daemon):
    return run(natives.braid(), "metrics", "--socket", daemon.socket_path).stdout


class Samples:
    """What a scrape holds."""

    def __init__(self, daemon):
        self.text = scrape(daemon)
        self.series = {}
        for line in self.text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.match(line).groups()
            self.series[name, frozenset(LABEL.findall(labels or ""))] = float(value)

    def sum(self, name, **labels):
        """Of all series that have these labels."""
        return sum(self.all(name, **labels))

    def all(self, name, **labels):
        return [value for (each, has), value in self.series.items()
                if each == name and has >= set(labels.items())]


def health(daemon):
    """The exit code, and the components as JSON has them."""
    done = run(natives.braid(), "health", "--json", "--socket", daemon.socket_path, check=False)
    return done.returncode, json.loads(done.stdout)["components"] if done.stdout else {}


def wait_health(daemon, code, component=None, seconds=20):
    """Until it is so, by this component. What else a busy machine lets the slow path suffer is not
    looked at while anything is wrong at all."""
    def is_so():
        found, components = health(daemon)
        if component is None:
            return found == code
        return components.get(component, {}).get("status") == ("ok", "degraded", "failed")[code] \
            and components[component]
    return eventually(is_so, seconds, f"the health of {daemon.name} is {code}: {health(daemon)}",
                      interval=0.2)


class Metrics(LabTest):
    def test_count_the_traffic(self):
        tunnel = Tunnel(self.lab).start()
        before = {daemon: Samples(daemon) for daemon in tunnel.daemons}
        report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-l", "128K", seconds=2)
        payload = report["end"]["sum_received"]["bytes"]
        for daemon, peer, way in ((tunnel.client, "hub", "transmit"),
                                  (tunnel.server, "branch", "receive")):
            after = Samples(daemon)
            self.assertEqual(set(before[daemon].series) - set(after.series), set())
            for (name, labels), value in after.series.items():
                if name.endswith("_total"):
                    self.assertGreaterEqual(value, before[daemon].series.get((name, labels), 0),
                                            (name, labels))

            def counted(name, **labels):
                return after.sum(name, **labels) - before[daemon].sum(name, **labels)

            # Inner headers, and what TCP sends again, come on top of it.
            by_peer = counted("braid_peer_bytes_total", peer=peer, direction=way)
            self.assertGreater(by_peer, payload)
            self.assertLess(by_peer, payload * 1.5)
            packets = counted("braid_peer_packets_total", peer=peer, direction=way)
            self.assertGreater(by_peer / packets, 500)
            # A packet may come while they are read.
            self.assertAlmostEqual(counted("braid_worker_bytes_total", direction=way), by_peer,
                                   delta=5000)
            self.assertAlmostEqual(counted("braid_worker_packets_total", direction=way), packets,
                                   delta=5)
            over_paths = counted("braid_path_bytes_total", peer=peer, direction=way)
            datagrams = counted("braid_path_datagrams_total", peer=peer, direction=way)
            self.assertLess(over_paths, by_peer * 1.5)
            self.assertGreater(datagrams, packets * 0.9)
            if way == "receive":  # of what is sent some may be dropped on its way to the socket
                self.assertGreaterEqual(over_paths, by_peer + 40 * packets - 5000)
            busy = counted("braid_worker_busy_seconds_total")
            self.assertGreater(busy, 0.001)
            self.assertLessEqual(busy, counted("process_cpu_seconds_total") + 0.1)
            self.assertEqual(after.sum("braid_peer_established", peer=peer), 1)
            self.assertEqual(after.sum("braid_sessions"), 1)
            self.assertGreaterEqual(after.sum("braid_handshakes_completed_total"), 1)
            self.assertEqual(after.sum("braid_path_up"), 1)
            started_s = after.sum("process_start_time_seconds")
            self.assertLess(abs(started_s - os.stat(f"/proc/{daemon.process.pid}").st_mtime), 60)
        rtt_s, = Samples(tunnel.client).all("braid_path_rtt_seconds")
        self.assertGreater(rtt_s, 0)
        self.assertLess(rtt_s, 5)

    def test_are_taken_by_promtool_without_a_word(self):
        # Both have bonds, which give the most.
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5},
                    {"rate_mbps": 10, "delay_ms": 10, "loss": 0.01})
        bond.send("--bidir", seconds=3)
        for daemon in (bond.client, bond.server):
            samples = Samples(daemon)
            done = run("promtool", "check", "metrics", input=samples.text, check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
            self.assertEqual(len(samples.all("braid_path_capacity_bytes_per_second")), 2)
            self.assertGreater(samples.sum("braid_path_goodput_bytes_per_second"), 0)
            self.assertEqual(samples.sum("braid_bond_active"), 1)
            self.assertGreater(samples.sum("braid_bond_held_packets_total"), 0)
            self.assertGreater(samples.sum("braid_bond_held_seconds_total"), 0)
            self.assertGreater(samples.sum("braid_bond_repairs_total"), 0)
            self.assertGreater(samples.sum("braid_bond_lost_datagrams_total"), 0)
            for direction in ("receive", "transmit"):
                self.assertEqual(len(samples.all("braid_path_loss_ratio", direction=direction)), 2)

    def test_have_each_reason_of_a_drop_as_the_status_counts_it(self):
        tunnel = Tunnel(self.lab).start()
        tunnel.client_ns.ip("route add 10.99.0.0/24 dev braid0")
        ping(tunnel.client_ns, "10.99.0.1", count=3, wait=0.1)

        def told_alike():
            reasons = {dict(labels)["reason"]: value for (name, labels), value
                       in Samples(tunnel.client).series.items() if name == "braid_drops_total"}
            return reasons == tunnel.client.drops() and reasons

        reasons = eventually(told_alike, 5, "metrics and status tell the same")
        self.assertGreaterEqual(reasons["no_route"], 3)
        self.assertGreater(len(reasons), 30)

    def test_come_from_a_server_once_a_client_has_come(self):
        tunnel = Tunnel(self.lab)
        tunnel.server.start()
        self.assertNotIn('peer="', scrape(tunnel.server))
        self.assertEqual(Samples(tunnel.server).sum("braid_peers"), 1)
        tunnel.client.start()
        tunnel.wait()
        self.assertEqual(Samples(tunnel.server).sum("braid_peer_established", peer="branch"), 1)
        tunnel.client.stop()
        eventually(lambda: Samples(tunnel.server).all("braid_peer_established") == [0], 5,
                   "the session's end is seen")

    def test_without_a_daemon_there_are_none(self):
        done = run(natives.braid(), "metrics", "--socket", "/nowhere/braid.sock", check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("no daemon runs at /nowhere/braid.sock", done.stderr)


class Health(LabTest):
    beside_others = True

    def test_of_a_client_whose_path_and_then_whose_server_is_gone(self):
        bond = Bond(self.lab, {"delay_ms": 2}, {"delay_ms": 2}, names=["fibre", "lte"])
        client, server = bond.client, bond.server
        wait_health(client, OK)
        wait_health(server, OK)
        client.ns.ip("link set link2 down")
        why = wait_health(client, DEGRADED, "connectivity")["why"]
        self.assertIn('path "lte" to "hub" is down', why)
        done = run(natives.braid(), "health", "--socket", client.socket_path, check=False)
        self.assertEqual(done.returncode, DEGRADED)
        self.assertRegex(done.stdout, r"^braid +degraded\n")
        self.assertRegex(done.stdout, r'connectivity +degraded +path "lte" to "hub" is down')
        self.assertEqual(Samples(client).sum("braid_path_up"), 1)
        self.assertEqual(Samples(client).sum("braid_health", component="connectivity"), 1)
        wait_health(server, OK)  # it waits for nobody

        server.stop()
        why = wait_health(client, FAILED, "connectivity")["why"]
        self.assertIn('"hub"', why)
        self.assertEqual(health(client)[0], FAILED)
        self.assertEqual(health(server), (NO_ANSWER, {}))

        server.start()
        client.ns.ip("link set link2 up")
        wait_health(client, OK, "connectivity")
        wait_health(client, OK)

    def test_of_a_worker_that_hangs(self):
        folder = self.lab.folder
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(os.path.join(folder, "notify"))
            systemd.setblocking(False)
            told = []

            def takes_signs():
                """How many there are since it was last called."""
                told.clear()
                with contextlib.suppress(BlockingIOError):
                    while True:
                        told.append(systemd.recv(4096).decode())
                return sum("WATCHDOG=1" in each for each in told)

            # The test's own socket is in this namespace of mounts, and no network is in its way.
            tunnel = Tunnel(self.lab, both={"performance": {"workers": 2, "pin": False}},
                            server_wrap=("env", f"NOTIFY_SOCKET={folder}/notify",
                                         "WATCHDOG_USEC=2000000"))
            tunnel.start()
            eventually(lambda: takes_signs() > 0, 5, "systemd is told of a daemon that lives")
            eventually(lambda: takes_signs() > 0, 10, "and again")
            with Hanging(tunnel.server, "braid-worker1"):
                why = wait_health(tunnel.server, FAILED, "workers")["why"]
                self.assertRegex(why, r"^worker 1 has not answered for \d+ s")
                takes_signs()
                time.sleep(2.5)
                self.assertEqual(takes_signs(), 0, "of a worker that hangs systemd is not told")
                samples = Samples(tunnel.server)
                self.assertGreater(samples.sum("braid_worker_silent_seconds", worker="1"), 3)
                self.assertEqual(samples.sum("braid_health", component="workers"), 2)
            wait_health(tunnel.server, OK, "workers")
            eventually(lambda: takes_signs() > 0, 10, "it lives again")

    def test_of_a_daemon_that_has_few_file_descriptors(self):
        tunnel = Tunnel(self.lab)
        tunnel.server.start()
        used = len(os.listdir(f"/proc/{tunnel.server.process.pid}/fd"))
        tunnel.server.stop()
        tunnel.server.wrap = ["prlimit", f"--nofile={used + 4}"]
        tunnel.server.start()
        self.assertIn("file descriptors are in use",
                      wait_health(tunnel.server, DEGRADED, "resources")["why"])

    def test_of_a_daemon_that_does_not_answer(self):
        tunnel = Tunnel(self.lab)
        tunnel.server.start()
        wait_health(tunnel.server, OK)
        tunnel.server.process.send_signal(signal.SIGSTOP)
        try:
            begin = time.monotonic()
            done = run(natives.braid(), "health", "--socket", tunnel.server.socket_path,
                       check=False)
            self.assertEqual((done.returncode, done.stdout), (NO_ANSWER, ""))
            self.assertIn("did not answer in time", done.stderr)
            self.assertGreater(time.monotonic() - begin, 4.5)
        finally:
            tunnel.server.process.send_signal(signal.SIGCONT)


class Hanging:
    """One thread of a daemon, by its name, that is kept from running as a debugger does it."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, daemon, thread):
        tasks = f"/proc/{daemon.process.pid}/task"
        self.thread = next(int(task) for task in os.listdir(tasks)
                           if _read(f"{tasks}/{task}/comm").strip() == thread)

    def __enter__(self):
        self._ptrace(self.SEIZE)
        self._ptrace(self.INTERRUPT)
        os.waitpid(self.thread, 0x40000000)  # __WALL
        return self

    def __exit__(self, *_):
        self._ptrace(self.DETACH)

    def _ptrace(self, request):
        libc = ctypes.CDLL(None, use_errno=True)
        nothing = ctypes.c_void_p()
        if libc.ptrace(request, self.thread, nothing, nothing) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")


def _read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()
