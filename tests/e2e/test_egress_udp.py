"""UDP that leaves past the tunnel, straight or through SOCKS5 servers: the machines are drawn in
machines.py.
"""
import contextlib
import os
import socket
import threading

import socks5
from lab import eventually
from machines import DIRECT, FAR, Machines, seen_as
from test_egress import FAR_NETWORKS, family_of
from test_socks5 import GROUP, PROVIDER, THROUGH

ECHO_PORT, OTHER_PORT = 7100, 7101


class UdpEcho:
    """Sends back what comes; "from PORT" is answered from another port of the same machine."""

    def __init__(self, ns):
        self.sockets = []
        self.seen = []
        for port in (ECHO_PORT, OTHER_PORT):
            of = ns.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            of.bind(("::", port))
            self.sockets.append(of)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                data, source = self.sockets[0].recvfrom(1 << 16)
                if source is None:  # it is shut down
                    return
                self.seen.append(source)
                self.sockets[data == b"other"].sendto(data, source)

    def close(self):
        for of in self.sockets:
            with contextlib.suppress(OSError):
                of.shutdown(socket.SHUT_RDWR)
            of.close()


class EgressUdp(Machines):
    def start_with(self, to, *options, network=None, **proxy):
        self.set_up(client={
            "network": network or {},
            "proxy": {"rules": [{"match": {"prefix": FAR_NETWORKS}, "to": to}],
                      "groups": {GROUP: {"upstreams": [{"address": f"{PROVIDER[4]}:1080"}]}},
                      **proxy}})
        self.socks = socks5.Server(self.provider, 1080, *options)
        self.echo = UdpEcho(self.far)
        self.addCleanup(self.echo.close)
        self.tunnel.start()

        def is_carried():
            seen_as(self.client_ns, FAR[4])
            return self.client.status()["egress"]["tcp"]["opened"] > 0
        eventually(is_carried, 5, "what is for far enters the device")

    def udp(self):
        return self.client.status()["egress"]["udp"]

    def socket(self, family=4, ns=None):
        of = (ns or self.client_ns).socket(family_of(FAR[family]), socket.SOCK_DGRAM)
        self.addCleanup(of.close)
        of.settimeout(3)
        return of

    def assert_echo(self, of, family=4, data=b"hello", port=ECHO_PORT):
        of.sendto(data, (FAR[family], ECHO_PORT))
        got, source = of.recvfrom(1 << 16)
        self.assertEqual((got, source[:2]), (data, (FAR[family], port)))

    def assert_lost(self, of, data=b"lost"):
        of.settimeout(0.5)
        of.sendto(data, (FAR[4], ECHO_PORT))
        with self.assertRaises(OSError):
            of.recv(1 << 16)
        of.settimeout(3)

    def assert_both_ways(self, seen):
        for family in (4, 6):
            of = self.socket(family)
            for size in (0, 1, 64, 1000, 1300):
                self.assert_echo(of, family, os.urandom(size))
            self.assertEqual(self.echo.seen[-1][0].removeprefix("::ffff:"), seen[family])
            # Whoever answers reaches it, and to everybody it is the same.
            self.assert_echo(of, family, b"other", OTHER_PORT)
            of.sendto(b"x", (FAR[family], OTHER_PORT))
            self.assertEqual(len({source[1] for source in self.echo.seen[-6:]}), 1)
        eventually(lambda: self.udp()["sessions"] == 2, 10, "one for each source")
        # Many at once: trains of datagrams come back in their order.
        of = self.socket()
        count, size = 2000, 100
        for begin in range(0, count, 50):
            for number in range(begin, begin + 50):
                of.sendto(b"%06d" % number + bytes(size), (FAR[4], ECHO_PORT))
            for number in range(begin, begin + 50):
                self.assertEqual(of.recv(1 << 16)[:6], b"%06d" % number)

    def test_straight_out_both_ways(self):
        self.start_with("direct")
        self.assert_both_ways(DIRECT)

    def test_through_a_server_both_ways(self):
        self.start_with(GROUP)
        self.assert_both_ways(THROUGH)
        eventually(lambda: self.socks.counts()["associations"] >= 3, 5, "one for each source")

    def test_a_server_with_one_port_for_all(self):
        self.start_with(GROUP, "--udp-port", "shared")
        sockets = [self.socket() for _ in range(5)]
        for of in sockets:
            self.assert_echo(of)
        for of in sockets:
            self.assert_echo(of, data=b"again")

    def test_a_server_that_names_whom_it_has_heard(self):
        self.start_with(GROUP, "--udp-domain-replies", "--name", f"far={FAR[4]}")
        self.assert_echo(self.socket())

    def test_hosts_behind_the_gateway(self):
        self.start_with(GROUP, network={"nat": [{"source": "10.50.1.0/24", "out": "braid0"}]})
        self.assert_echo(self.socket(ns=self.host))

    def test_fragments_of_a_server_are_dropped_and_counted(self):
        self.start_with(GROUP, "--behave", "udp-frag")
        self.assert_lost(self.socket())
        eventually(lambda: self.udp()["fragments"] == 1, 10, "it is counted")

    def test_the_end_of_the_control_connection_ends_the_session(self):
        self.start_with(GROUP, "--behave", "udp-close-control:300")
        of = self.socket()
        self.assert_echo(of)
        first = self.echo.seen[-1]
        eventually(lambda: self.udp()["begun"] == 1, 10, "it was there")
        eventually(lambda: self.udp()["sessions"] == 0, 10, "it has ended")
        # The next datagram begins another one.
        self.assert_echo(of)
        self.assertNotEqual(self.echo.seen[-1], first)

    def test_when_all_sessions_are_in_use_the_oldest_goes(self):
        self.start_with(GROUP, udp_sessions=16)
        sockets = [self.socket() for _ in range(40)]
        for of in sockets:
            self.assert_echo(of)
        eventually(lambda: self.udp()["begun"] >= 40, 10, "all have begun")
        self.assertLessEqual(self.udp()["sessions"], 16)
        self.assertGreaterEqual(self.udp()["evicted"], 24)
        self.assert_echo(sockets[-1], data=b"the newest is there")
        eventually(lambda: self.socks.counts()["now_open"] <= 17, 5, "their connections have gone")

    def test_where_no_server_relays_datagrams(self):
        self.start_with(GROUP, "--no-udp")
        of = self.socket()
        self.assert_lost(of)
        eventually(lambda: self.udp()["refused"] >= 1, 5, "it is refused")
        self.assertGreaterEqual(self.udp()["not_waiting"], 1)

    def test_echoes_are_answered(self):
        self.start_with(GROUP)
        for family in (4, 6):
            for size in (0, 56, 1300):
                self.client_ns.run("ping", "-c", 1, "-W", 2, "-s", size, FAR[family])

    def test_it_leaves_nothing_behind(self):
        self.start_with(GROUP)
        self.assert_echo(self.socket())
        self.assertEqual(self.client.stop(), [])
        eventually(lambda: self.socks.counts()["now_open"] == 0, 5, "the server has nothing of it")
