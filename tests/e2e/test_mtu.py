"""Edges of the MTU: the largest packet passes, one byte more is answered.

    left 10.88.1.2 ── client ══ braid ══ server ── right 10.88.2.2
         fd88:1::2                                  fd88:2::2
"""
import time

import packets
from capture import Injector, Tap
from lab import eventually
from lab_test import LabTest, each
from topology import INNER, Gateways, Tunnel
from traffic import flood, iperf, ping, tcp_mbps

HEADERS = {4: 28, 6: 48}  # of an echo request
LEFT = {4: "10.88.1.2", 6: "fd88:1::2"}
RIGHT = {4: "10.88.2.2", 6: "fd88:2::2"}


def only_ipv4(config=None):
    """A server that listens on IPv4 only may use what IPv4 leaves."""
    return {"tunnel": {"listen": [{"address": "0.0.0.0", "port": 7700}]}, **(config or {})}


class Mtu(LabTest):
    beside_others = True

    def assert_edge(self, ns, address, family, mtu):
        fits = mtu - HEADERS[family]
        self.assertEqual(ping(ns, address, size=fits, options=("-M", "do")).received, 3)
        over = ping(ns, address, size=fits + 1, options=("-M", "do"))
        self.assertEqual((over.received, over.told_mtu), (0, mtu), over.text)

    @each(outer=(4, 6))
    def test_auto_is_what_the_path_carries(self, outer):
        tunnel = Tunnel(self.lab, outer=outer, server=only_ipv4() if outer == 4 else None).start()
        mtu = {4: 1432, 6: 1412}[outer]
        for family in (4, 6):
            self.assert_edge(tunnel.client_ns, INNER[family][1], family, mtu)
            self.assert_edge(tunnel.server_ns, INNER[family][0], family, mtu)

    def test_auto_on_a_path_of_jumbo_frames(self):
        tunnel = Tunnel(self.lab, mtu=9000, server=only_ipv4({"network": {"mtu": 8932}})).start()
        self.assert_edge(tunnel.client_ns, INNER[4][1], 4, 8932)
        self.assertGreater(tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1])), 100)

    def test_a_path_that_cannot_carry_1280_is_refused(self):
        tunnel = Tunnel(self.lab, mtu=1340)
        tunnel.client.config["network"]["mtu"] = "auto"
        tunnel.client.start(ready=False)
        self.assertEqual(tunnel.client.process.wait(5), 1)
        self.assertIn("1280", tunnel.client.log())
        tunnel.client.process = None

    @each(smaller=("client", "server"))
    def test_ends_of_different_mtu(self, smaller):
        settings = {"client": {"network": {"mtu": 1400}}, "server": {"network": {"mtu": 1400}}}
        settings[smaller]["network"]["mtu"] = 1300
        tunnel = Tunnel(self.lab, **settings).start()
        for family in (4, 6):
            for ns, address in ((tunnel.client_ns, INNER[family][1]),
                                (tunnel.server_ns, INNER[family][0])):
                with self.subTest(family=family, ns=ns.short):
                    fits = 1300 - HEADERS[family]
                    self.assertEqual(
                        ping(ns, address, size=fits, options=("-M", "do")).received, 3)
                    over = ping(ns, address, size=fits + 1, count=4, options=("-M", "do"))
                    self.assertEqual((over.received, over.told_mtu), (0, 1300), over.text)
            self.assertGreater(
                tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[family][1])), 50)
            self.assertGreater(
                tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[family][1], "-R")), 50)
        larger = tunnel.server if smaller == "client" else tunnel.client
        self.assertGreater(larger.drops()["too_big"], 0)

    def test_hosts_behind_learn_of_the_smaller_end(self):
        tunnel = Gateways(self.lab, client={"network": {"mtu": 1400}},
                          server={"network": {"mtu": 1300}}).start()
        for family in (4, 6):
            fits = 1300 - HEADERS[family]
            self.assertEqual(ping(tunnel.left, RIGHT[family], size=fits,
                                  options=("-M", "do")).received, 3)
            over = ping(tunnel.left, RIGHT[family], size=fits + 1, count=4, options=("-M", "do"))
            self.assertEqual((over.received, over.told_mtu), (0, 1300), over.text)

    def test_large_datagrams_find_their_way_in_fragments(self):
        tunnel = Tunnel(self.lab, both={"network": {"mtu": 1400}}).start()
        for family in (4, 6):
            got, sent = flood(tunnel.server_ns, tunnel.client_ns, INNER[family][1],
                              size="1300-60000", rate=500)
            self.assertEqual(got["received"], sent["sent"])

    @each(family=(4, 6))
    def test_mss_is_clamped_on_the_way(self, family):
        tunnel = Gateways(self.lab, client={"network": {"mtu": 1400}},
                          server={"network": {"mtu": 1300}}).start()
        for source, to, near, far, gateway in (
                (LEFT, RIGHT, tunnel.left, tunnel.right, tunnel.client_ns),
                (RIGHT, LEFT, tunnel.right, tunnel.left, tunnel.server_ns)):
            for options in ([("MSS", 1460)], [("NOP", None), ("MSS", 1460)],
                            [("SAckOK", b""), ("WScale", 7), ("MSS", 1460)]):
                syn = self.syn(source[family], to[family], options)
                out = "server" if far is tunnel.right else "client"
                with Injector(near, gateway.short, gateway.mac(near.short)) as injector, \
                        Tap(far, out) as tap:
                    injector.send(syn)
                    came = tap.wait(1, lambda p: p[0] >> 4 == family and p[20:] and
                                    self.protocol(p) == 6)[0]
                kind = packets.IP if family == 4 else packets.IPv6
                seen = kind(came)
                self.assertEqual(dict(o for o in seen[packets.TCP].options)["MSS"],
                                 1300 - (40 if family == 4 else 60))
                self.assertTrue(packets.transport_checksum_is_right(came))
            self.assertGreater(tcp_mbps(iperf(far, near, to[family])), 50)

    def syn(self, source, to, options):
        kind = packets.IPv6 if ":" in source else packets.IP
        return packets.raw(kind(src=source, dst=to) /
                           packets.TCP(sport=4001, dport=9, flags="S", options=options))

    def protocol(self, packet):
        return packet[9] if packet[0] >> 4 == 4 else packet[6]

    def test_a_smaller_mss_is_left_alone(self):
        tunnel = Gateways(self.lab).start()
        syn = self.syn(LEFT[4], RIGHT[4], [("MSS", 900)])
        mac = tunnel.client_ns.mac("left")
        with Injector(tunnel.left, "client", mac) as injector, Tap(tunnel.right, "server") as tap:
            injector.send(syn)
            self.assertTrue(tap.wait(1, lambda p: p == packets.forwarded(syn, 2)))

    def test_too_big_is_answered_at_a_bounded_rate(self):
        tunnel = Tunnel(self.lab, client={"network": {"mtu": 1400}},
                        server={"network": {"mtu": 1300}}).start()
        big = packets.udp_packet(INNER[4][0], INNER[4][1], size=1360)
        with Injector(tunnel.client_ns, "braid0") as injector, \
                Tap(tunnel.client_ns, "braid0") as tap:
            for number in range(2000):
                injector.send(big)
                if number % 100 == 99:
                    time.sleep(0.005)  # no more than the device holds
            eventually(lambda: tunnel.client.drops()["too_big"] == 2000, 5, "all are counted")
            answers = tap.packets(lambda packet: packet[9] == 1)
        self.assertGreater(len(answers), 0)
        self.assertLess(len(answers), 1000)
