"""Hundreds of clients at one server, and thousands.

    swarm ──veth── server              swarm ──veth── nat ──veth── server
"""
import collections
import re
import signal
import time

from lab import eventually
from lab_test import LabTest, each
from swarm import OUTER, SwarmServer

CLIENTS = 200
# One packet is one write to the device, so that the kernel's counters tell the same as the server's.
NOT_JOINED = {"performance": {"offloads": False}}
EXPECTED_DROPS = {"handshake_rate_limited"}  # an initiation that was answered with a cookie
# What clients go on with that have not heard that it ends: sealed packets, and cookies.
OF_THE_FORMER_SERVER = {"unknown_session", "handshake_bad_mac"}


class Swarm(LabTest):
    beside_others = True

    def start(self, clients=CLIENTS, config=None, nat=False):
        self.server = SwarmServer(self.lab, clients, config, nat=nat).start()
        return self.server

    def assert_nothing_dropped(self, but=()):
        drops = {name for name, count in self.server.daemon.drops().items() if count}
        self.assertEqual(drops - EXPECTED_DROPS - set(but), set())

    def assert_all_have_left(self):
        eventually(lambda: self.server.established() == 0, 5, "the server has forgotten all")

    @each(pattern=("turn", "random"))
    def test_every_packet_of_every_client_arrives(self, pattern):
        server = self.start(config=NOT_JOINED)
        with server.sink(buffer_bytes=64 << 20) as sink:
            before = server.tun_packets()
            told = server.swarm("send", "--pattern", pattern, "--packets", 5000, "--seconds", 1,
                                "--warmup", 0, "--size", 200)
            (case,) = told["cases"]
            self.assertEqual(told["established_at_end"], CLIENTS)
            self.assertGreaterEqual(case["sent"], 10 * CLIENTS)
            self.assertEqual(case["accepted"], case["sent"])
            self.assertEqual(server.tun_packets() - before, case["sent"])
            by_client = collections.Counter()
            for _ in range(case["sent"]):
                payload, (address, _) = sink.recvfrom(2048)
                self.assertEqual(len(payload), 200 - 28)
                by_client[address] += 1
        self.assertEqual(len(by_client), CLIENTS)
        if pattern == "turn":
            self.assertLessEqual(max(by_client.values()) - min(by_client.values()), 1)
        self.assert_nothing_dropped()
        self.assert_all_have_left()

    def test_idle_clients_stay_established_across_rekeys(self):
        server = self.start()
        told = server.swarm("idle", "--seconds", 5, "--rekey-after-s", 1.5, "--keepalive-s", 0.5)
        self.assertEqual(told["established_at_end"], CLIENTS)
        self.assertEqual(told["fewest_established"], CLIENTS)
        self.assertGreaterEqual(told["rekeys"], CLIENTS)
        self.assertEqual(told["counts"]["lost_sessions"], 0)
        self.assertEqual(told["counts"]["refused_datagrams"], 0)
        self.assertEqual(server.daemon.log().count("session established"), CLIENTS)
        self.assertEqual(server.daemon.log().count("closed by the other end"), CLIENTS)
        self.assert_nothing_dropped()
        self.assert_all_have_left()

    @each(number=(signal.SIGINT, signal.SIGTERM))
    def test_a_swarm_that_is_told_to_end_closes_its_sessions(self, number):
        server = self.start()
        process = server.start_swarm("idle", "--seconds", 0)
        eventually(lambda: re.search(r"^established: all", process.err(), re.M), 20,
                   "all are established")
        self.assertEqual(server.established(), CLIENTS)
        process.send_signal(number)
        self.assertEqual(server.result(process)["established_at_end"], CLIENTS)
        self.assert_all_have_left()

    @each(sockets=(0, 30))
    def test_cookies_let_a_crowd_in_that_comes_at_once(self, sockets):
        """More initiations at once than a server takes unasked; 0: each client has its socket."""
        clients = 900
        server = self.start(clients)
        told = server.swarm("idle", "--seconds", 0.5, "--rate", "max", "--window", clients,
                            "--sockets", sockets)
        self.assertGreater(told["establishing"]["counts"]["cookies"], 0)
        self.assertEqual(told["established_at_end"], clients)
        self.assert_nothing_dropped()
        self.assert_all_have_left()

    def test_handshakes_follow_each_other(self):
        server = self.start()
        told = server.swarm("handshakes", "--rate", "max", "--seconds", 2, "--warmup", 0)
        self.assertGreaterEqual(told["completed"], 2 * CLIENTS)
        self.assertEqual(told["counts"]["failed"], 0)
        self.assertGreater(told["server_cpu"]["others_us_per_handshake"], 0)
        self.assert_all_have_left()

    @each(how=("stop", "kill"))
    def test_a_crowd_behind_one_nat_is_back_after_a_restart(self, how):
        """One address, and all begin again at once."""
        clients = 2000
        server = self.start(clients, nat=True)
        process = server.start_swarm("idle", "--seconds", 0, "--rate", "max", "--window", clients,
                                     "--keepalive-s", 0.5, probe=False)
        eventually(lambda: re.search(r"^idle: 2,000 established", process.err(), re.M), 60,
                   "all are established")
        self.assert_each_has_one_session_from_the_nat(clients)
        self.assert_nothing_dropped()

        if how == "stop":
            self.assertEqual(server.daemon.stop(), [])
        else:
            server.daemon.kill()
        server.start()
        eventually(lambda: server.established() == clients, 60, "all are back", interval=0.2)
        time.sleep(1.5)  # three pings of each
        self.assert_each_has_one_session_from_the_nat(clients)
        self.assert_nothing_dropped(OF_THE_FORMER_SERVER)

        process.send_signal(signal.SIGINT)
        told = server.result(process)
        self.assertEqual(told["established_at_end"], clients)
        self.assertGreaterEqual(told["rekeys"], clients)
        self.assert_all_have_left()

    def assert_each_has_one_session_from_the_nat(self, clients):
        daemon = self.server.daemon
        self.assertEqual(self.server.established(), clients)
        self.assertEqual(daemon.log().count("session established"), clients)
        self.assertNotIn("session ended", daemon.log())
        remotes = {peer["paths"][0]["remote"] for peer in daemon.status()["peers"]}
        self.assertEqual(len(remotes), clients)
        self.assertEqual({remote.rpartition(":")[0] for remote in remotes}, {OUTER[0]})
