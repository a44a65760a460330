"""Every kind of inner packet passes unharmed, byte for byte.

    left 10.88.1.2 ── client ══ braid ══ server ── right 10.88.2.2
         fd88:1::2                                  fd88:2::2

Packets are put on a device as they are and compared with what comes out: at the other end of the
tunnel, and at the host behind it, where two routers have counted down the hops.
"""
import unittest

import packets
from capture import Injector, Tap
from daemon import Daemon, Identity
from lab_test import LabTest, each
from topology import INNER, Gateways, Tunnel, client_config, server_config
from traffic import iperf, tcp_mbps

MTU = 1432


class InnerPackets(LabTest):
    beside_others = True

    def assert_same(self, injector, tap, family, named, hops=0):
        version = lambda packet: packet[0] >> 4 == family
        for name, packet in named:
            with self.subTest(packet=name, family=family, hops=hops):
                expected = packets.forwarded(packet, hops) if hops else packet
                tap.forget()
                injector.send(packet)
                # Hosts speak by themselves too (neighbours, multicast), and answer what comes.
                came = tap.wait(1, lambda each: version(each) and each[:40] == expected[:40] or
                                each == expected, 1)
                self.assertEqual([each.hex() for each in came[:1]], [expected.hex()])

    def kinds(self, family, source, destination):
        make = packets.ipv4 if family == 4 else packets.ipv6
        return packets.built(make(source, destination, MTU))

    @each(io=("io_uring", "epoll"))
    def test_to_the_other_end(self, io):
        tunnel = Tunnel(self.lab, both={"performance": {"io": io}, "network": {"mtu": MTU}}).start()
        for family in (4, 6):
            client, server = INNER[family]
            for source_ns, to_ns, source, to in (
                    (tunnel.client_ns, tunnel.server_ns, client, server),
                    (tunnel.server_ns, tunnel.client_ns, server, client)):
                with Injector(source_ns, "braid0") as injector, Tap(to_ns, "braid0") as tap:
                    self.assert_same(injector, tap, family, self.kinds(family, source, to))
        for daemon in tunnel.daemons:
            self.assertEqual({name: count for name, count in daemon.drops().items() if count}, {})

    def test_to_a_host_behind_a_gateway(self):
        tunnel = Gateways(self.lab, both={"network": {"mtu": MTU}}).start()
        for family in (4, 6):
            left, right = {4: ("10.88.1.2", "10.88.2.2"), 6: ("fd88:1::2", "fd88:2::2")}[family]
            for source_ns, gateway, to_ns, source, to in (
                    (tunnel.left, tunnel.client_ns, tunnel.right, left, right),
                    (tunnel.right, tunnel.server_ns, tunnel.left, right, left)):
                mac = gateway.mac(source_ns.short)
                out = "server" if to_ns is tunnel.right else "client"
                with Injector(source_ns, gateway.short, mac) as injector, Tap(to_ns, out) as tap:
                    self.assert_same(injector, tap, family, self.kinds(family, source, to), hops=2)

    @each(kind=((4, "counting"), (4, "zero"), (4, "random"), (6, "")))
    def test_a_train_of_tcp_is_the_same_after_it_was_joined_and_cut(self, kind):
        family, ids = kind
        tunnel = Gateways(self.lab, both={"network": {"mtu": MTU}}).start()
        # The last device segments and sums in software, so that whole packets are seen.
        tunnel.server_ns.ethtool("right", tso="off", gso="off", tx="off")
        left, right = {4: ("10.88.1.2", "10.88.2.2"), 6: ("fd88:1::2", "fd88:2::2")}[family]
        train = packets.tcp_train(left, right, 20, 1000, ids)
        expected = [packets.forwarded(packet, 2) for packet in train]
        mac = tunnel.client_ns.mac("left")
        with Injector(tunnel.left, "client", mac) as injector, Tap(tunnel.right, "server") as tap:
            for packet in train:
                injector.send(packet)
            mine = lambda packet: packet[0] >> 4 == family and len(packet) > 300
            came = tap.wait(len(train), mine)
        # The id of an unfragmentable packet means nothing (RFC 6864).
        self.assertEqual([self.without_id(packet, ids) for packet in came],
                         [self.without_id(packet, ids) for packet in expected])

    def without_id(self, packet, ids):
        if packet[0] >> 4 == 6 or ids != "zero":
            return packet.hex()
        return packet[:4].hex() + packet[6:10].hex() + packet[12:].hex()

    @each(tx=("on", "off"))
    def test_checksums_of_offloaded_traffic_are_right_on_the_wire(self, tx):
        tunnel = Gateways(self.lab).start()
        tunnel.server_ns.ethtool("right", tx="off", tso="off", gso="off")
        tunnel.left.ethtool("client", tx=tx)
        for address in ("10.88.2.2", "fd88:2::2"):
            for options in (("-n", "2M"), ("-u", "-b", "50M", "-l", "1300", "-n", "500K"),
                            ("-u", "-b", "50M", "-l", "5000", "-n", "500K")):
                if ":" in address and "5000" in options:
                    continue  # who sends fragments over IPv6 is told of a smaller MTU as an error
                with self.subTest(address=address, options=options), \
                        Tap(tunnel.right, "server") as tap:
                    iperf(tunnel.right, tunnel.left, address, *options)
                    self.assert_checksums(tap.packets())

    def assert_checksums(self, captured):
        checked = 0
        for packet in captured[:2000]:
            v4 = packet[0] >> 4 == 4
            protocol = packet[9] if v4 else packet[6]
            fragment = v4 and int.from_bytes(packet[6:8], "big") & 0x3FFF
            self.assertTrue(packets.ip_header_checksum_is_right(packet), packet.hex())
            if protocol in (6, 17) and not fragment:
                self.assertTrue(packets.transport_checksum_is_right(packet), packet[:80].hex())
                checked += 1
        self.assertGreater(checked, 5)

    @each(kind=("vxlan", "geneve", "gre", "ip6gre", "ipip", "sit"))
    def test_another_tunnel_inside(self, kind):
        tunnel = Tunnel(self.lab).start()
        outer = 6 if kind == "ip6gre" else 4
        client, server = INNER[outer]
        for ns, local, remote, number in ((tunnel.client_ns, client, server, 2),
                                          (tunnel.server_ns, server, client, 1)):
            how = {"vxlan": f"id 5 dstport 4789 local {local} remote {remote}",
                   "geneve": f"id 5 remote {remote}"}.get(kind, f"local {local} remote {remote}")
            made = ns.ip(f"link add inside mtu 1300 type {kind} {how}", check=False)
            if made.returncode != 0:
                raise unittest.SkipTest(f"this kernel has no {kind}: {made.stderr.strip()}")
            if kind != "sit":
                ns.ip(f"addr add 10.99.0.{number}/24 dev inside")
            ns.ip(f"addr add fd99::{number}/64 dev inside")
            ns.ip("link set inside up")
        for address in ("fd99::1",) if kind == "sit" else ("10.99.0.1", "fd99::1"):
            for way in ((), ("-R",)):
                report = iperf(tunnel.server_ns, tunnel.client_ns, address, *way)
                self.assertGreater(tcp_mbps(report), 50, address)
            self.assertGreater(
                tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, address, "-P", 3)), 50)

    def test_vxlan_inside_over_ipv6_and_to_a_host_behind(self):
        """The device is on hosts behind the gateways; its checksums are partial all the way."""
        tunnel = Gateways(self.lab).start()
        for ns, local, remote, number in ((tunnel.left, "fd88:1::2", "fd88:2::2", 2),
                                          (tunnel.right, "fd88:2::2", "fd88:1::2", 1)):
            ns.ip(f"link add inside mtu 1300 type vxlan id 5 dstport 4789 local {local} "
                  f"remote {remote}")
            ns.ip(f"addr add 10.99.0.{number}/24 dev inside")
            ns.ip("link set inside up")
        for way in ((), ("-R",)):
            self.assertGreater(tcp_mbps(iperf(tunnel.right, tunnel.left, "10.99.0.1", *way)), 50)

    def test_braid_inside_braid(self):
        tunnel = Tunnel(self.lab, both={"network": {"mtu": 1412}}).start()
        hub, branch = Identity(self.lab, "inner-hub"), Identity(self.lab, "inner-branch")
        server = Daemon(tunnel.server_ns, "inner-server", server_config(
            hub, [(branch, ["10.66.0.2/32"], None)], {
                "network": {"device": "braid1", "addresses": ["10.66.0.1/24"]},
                "tunnel": {"listen": [{"address": "10.77.0.1", "port": 7701}]}}))
        client = Daemon(tunnel.client_ns, "inner-client", client_config(
            branch, hub, "10.77.0.1",
            extra={"network": {"device": "braid1", "addresses": ["10.66.0.2/24"]}},
            peer={"endpoints": ["10.77.0.1:7701"], "allowed_ips": ["10.66.0.0/24"]}))
        server.start()
        client.start()
        client.wait_established()
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, "10.66.0.1", *way)
            self.assertGreater(tcp_mbps(report), 50)
