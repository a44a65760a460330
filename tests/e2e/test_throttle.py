"""Limits of rates: kept for TCP and UDP in both directions, each peer by itself and all together,
changed while the tunnel runs; what is too much of one slows no other.

Two clients of one server, in a star. The server has the limits. They are of inner packets; what
iperf3 counts is less by their headers.
"""
import json
import time

import natives
from bond import Bond
from daemon import merged
from lab import eventually, run
from lab_test import LabTest, each
from topology import Star
from traffic import Iperf, Pinger, flood, iperf, tcp_mbps

NUMBERS = (2, 3)
LIMITS = {2: 50, 3: 20}
TCP_PAYLOAD = 1368 / 1420  # of an inner packet, with timestamps
DATAGRAM = 1300
UDP_PAYLOAD = DATAGRAM / (DATAGRAM + 28)


def limits_config(limits, total=None):
    throttle = {"peers": {f"client{number}": {"rate_mbps": mbps}
                          for number, mbps in limits.items()}}
    return {"throttle": merged(throttle, {"total": {"rate_mbps": total}} if total else {})}


class Throttle(LabTest):
    def start(self, config=None):
        star = Star(self.lab, NUMBERS, config).start()
        self.server, self.clients = star.server, star.clients
        self.server_ns, self.machines = star.server_ns, star.machines

    def throttle(self, *arguments, check=True):
        return run(natives.braid(), "throttle", *arguments, "--socket", self.server.socket_path,
                   check=check)

    def shown(self):
        return json.loads(self.throttle("show", "--json").stdout)

    def limits_of(self, number):
        return next(peer for peer in self.shown()["peers"] if peer["name"] == f"client{number}")

    def at_once(self, down, *options, seconds=3):
        """iperf3 between the server and every client together; the reports by client."""
        direction = ("-R",) if down else ()
        running = {number: Iperf(self.server_ns, ns, "10.77.0.1", *direction, *options,
                                 seconds=seconds, omit=1)
                   for number, ns in self.machines.items()}
        try:
            return {number: one.report() for number, one in running.items()}
        finally:
            for one in running.values():
                one.__exit__()

    def assert_kept(self, mbps, limit, payload, what):
        self.assertGreater(mbps, 0.88 * limit * payload, what)
        self.assertLess(mbps, 1.05 * limit * payload, what)

    @each(down=(False, True))
    def test_tcp_of_two_peers_keeps_to_their_limits(self, down):
        self.start(limits_config(LIMITS))
        for number, report in self.at_once(down).items():
            self.assert_kept(tcp_mbps(report), LIMITS[number], TCP_PAYLOAD, f"client {number}")

    @each(down=(False, True))
    def test_udp_of_two_peers_keeps_to_their_limits(self, down):
        self.start(limits_config(LIMITS))
        reports = self.at_once(down, "-u", "-b", "75M", "-l", DATAGRAM)
        for number, report in reports.items():
            self.assert_kept(tcp_mbps(report), LIMITS[number], UDP_PAYLOAD, f"client {number}")
        way = "sending" if down else "receiving"
        for number in NUMBERS:
            eventually(lambda: self.limits_of(number)[way]["waiting_bytes"] == 0, 5,
                       "what waited has gone")
            done = self.limits_of(number)[way]
            self.assertGreater(done["delayed"], 1000)
            self.assertGreater(done["dropped"], 100)
            self.assertEqual(self.server.peer(f"client{number}")["throttle"][way], done)
        self.assertGreater(self.server.drops()["throttled_tx" if down else "throttled_rx"], 200)

    def test_all_together_share_their_limit(self):
        self.start(limits_config({3: 10}, total=40))
        for down in (False, True):
            reports = self.at_once(down)
            self.assert_kept(tcp_mbps(reports[3]), 10, TCP_PAYLOAD, "client 3")
            self.assert_kept(tcp_mbps(reports[2]), 30, TCP_PAYLOAD, "client 2")

    def test_limits_change_while_the_tunnel_runs(self):
        self.start()
        self.assertEqual(self.shown(), {"total": {"send": None, "receive": None}, "peers": []})
        with Iperf(self.server_ns, self.machines[2], "10.77.0.1", "-R", seconds=60):
            rate = self.rate_at(2)
            eventually(lambda: rate() > 80, 20, "without a limit much goes through", 0.5)
            self.throttle("set", "client2", 30)
            self.throttle("set", "client3", 20, "--burst", 64, "--only", "send")
            limit = {"rate_mbps": 30.0, "burst_kb": 75.0}
            self.assertEqual(self.limits_of(2)["send"], limit)
            self.assertEqual(self.limits_of(2)["receive"], limit)
            self.assertEqual(self.limits_of(3)["send"], {"rate_mbps": 20.0, "burst_kb": 64.0})
            self.assertIsNone(self.limits_of(3)["receive"])
            time.sleep(0.5)
            eventually(lambda: 27 < rate() < 31.5, 20, "the limit is kept", 1)
            self.throttle("set", "total", 15)
            time.sleep(0.5)
            eventually(lambda: 13.5 < rate() < 16, 20, "the limit of all is kept", 1)
            self.throttle("clear", "client2")
            self.throttle("clear", "total")
            eventually(lambda: rate() > 80, 20, "it has gone", 0.5)
        self.assertIn("peer client3\n  send     20 Mbit/s, burst 64 kB",
                      self.throttle().stdout)
        for wrong, why in ((("set", "client9", 5), "is not the name of a peer"),
                           (("set", "client2", 0), "rate_mbps must be a number from 0.1"),
                           (("set", "client2", -3), "rate_mbps must be a number from 0.1")):
            done = self.throttle(*wrong, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def rate_at(self, number):
        """A function that tells what came to a client since it was last asked, in Mbit/s."""
        def count():
            return time.monotonic(), self.clients[number].peer()["rx_bytes"]
        last = count()

        def rate():
            nonlocal last
            before, last = last, count()
            return (last[1] - before[1]) * 8e-6 / (last[0] - before[0])
        return rate

    def test_a_flood_of_one_slows_no_other(self):
        self.start(limits_config({2: 10}))
        alone = tcp_mbps(iperf(self.server_ns, self.machines[3], "10.77.0.1", seconds=1))
        pinger = Pinger(self.machines[3], "10.77.0.1")
        got, sent = flood(self.server_ns, self.machines[2], "10.77.0.1", size=str(DATAGRAM),
                          rate=30_000, seconds=3)
        pings = pinger.stop()
        self.assertGreater(sent["sent"], 30_000)
        # A second's worth more than the time: the queue empties behind it.
        self.assertLess(got["received"] * (DATAGRAM + 28) * 8e-6, 10 * (3 + 1))
        self.assertEqual(pings.received, pings.sent)
        drops = self.server.drops()
        self.assertGreater(drops["throttled_flood"], drops["throttled_rx"])
        self.assertEqual(self.limits_of(2)["receiving"]["refused"], drops["throttled_flood"])
        again = tcp_mbps(iperf(self.server_ns, self.machines[3], "10.77.0.1", seconds=1))
        self.assertGreater(again, 0.2 * alone)

    def test_what_is_refused_of_a_bonds_flood_is_not_asked_for_again(self):
        bond = Bond(self.lab, {"rate_mbps": 200, "delay_ms": 5}, {"rate_mbps": 100, "delay_ms": 10})
        self.server, tunnel = bond.server, bond.tunnel
        self.throttle("set", "branch", 10, "--only", "receive")
        pinger = Pinger(tunnel.client_ns, Star.SERVER)
        got, _ = flood(tunnel.server_ns, tunnel.client_ns, Star.SERVER, size=str(DATAGRAM),
                       rate=20_000, seconds=3)
        pings = pinger.stop()
        self.assertLess(got["received"] * (DATAGRAM + 28) * 8e-6, 10 * (3 + 1))
        # The peer's own small flow comes through as well.
        self.assertGreater(pings.received, 0.6 * pings.sent)
        refused = self.server.drops()["throttled_flood"]
        self.assertGreater(refused, 500)
        self.assertLess(bond.client.peer()["bond"]["repairs"], 0.7 * refused)
