"""New keys while traffic goes on, without a packet lost.

    client ──veth── server
"""
import time

from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import flood, iperf, tcp_mbps

EVERY_SECOND = {"security": {"rekey_after_s": 1}}


class Rekey(LabTest):
    beside_others = True

    def assert_nothing_dropped(self, tunnel):
        for daemon in tunnel.daemons:
            bad = {name: count for name, count in daemon.drops().items()
                   if count and name not in ("socket_full", "tun_write_failed")}
            self.assertEqual(bad, {}, daemon.name)

    @each(way=("up", "down"))
    @each(io=("io_uring", "epoll"))
    def test_every_second_under_a_moderate_load(self, way, io):
        tunnel = Tunnel(self.lab, both={**EVERY_SECOND, "performance": {"io": io}}).start()
        ends = [tunnel.server_ns, tunnel.client_ns]
        address = INNER[4][1] if way == "up" else INNER[4][0]
        if way == "down":
            ends.reverse()
        got, sent = flood(*ends, address, size="16-1384", rate=8000, seconds=4, flows=16)
        self.assertEqual((got["received"], got["doubled"], got["damaged"]), (sent["sent"], 0, 0))
        self.assertLess(tunnel.client.peer()["last_handshake_s"], 3)
        self.assert_nothing_dropped(tunnel)

    def test_every_second_under_tcp_at_full_rate(self):
        tunnel = Tunnel(self.lab, both=EVERY_SECOND).start()
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 2, *way,
                           seconds=3)
            rates = [each["sum"]["bits_per_second"] for each in report["intervals"]]
            self.assertGreater(min(rates) / 1e6, 100)
        self.assertGreater(tcp_mbps(report), 100)
        self.assert_nothing_dropped(tunnel)

    def test_every_second_while_idle(self):
        """Keepalives and handshakes keep an idle tunnel usable at any moment."""
        tunnel = Tunnel(self.lab, both=EVERY_SECOND).start()
        time.sleep(3)
        self.assertTrue(tunnel.client.is_established() and tunnel.server.is_established())
        self.assertLess(tunnel.client.peer()["last_handshake_s"], 3)
        self.assert_nothing_dropped(tunnel)

    @each(packets=(1024, 10000))
    def test_by_packets(self, packets):
        tunnel = Tunnel(self.lab, both={"security": {"rekey_after_packets": packets}}).start()
        got, sent = flood(tunnel.server_ns, tunnel.client_ns, INNER[4][1], size="100", rate=10000,
                          seconds=2, flows=4)
        self.assertEqual(got["received"], sent["sent"])
        got, sent = flood(tunnel.client_ns, tunnel.server_ns, INNER[4][0], size="100", rate=10000,
                          seconds=2, flows=4)
        self.assertEqual(got["received"], sent["sent"])
        self.assertLess(tunnel.client.peer()["last_handshake_s"], 6)
        self.assert_nothing_dropped(tunnel)
