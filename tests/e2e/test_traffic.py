"""Traffic of every size through the tunnel, IPv4 and IPv6 inside and outside.

    client 10.20.1.1, fd20:1::1 ──veth── 10.20.1.2, fd20:1::2 server
      └ 10.77.0.2, fd77::2 ═══════ braid0 ══════ 10.77.0.1, fd77::1 ┘
"""
from daemon import Identity
from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import flood, iperf, ping, tcp_mbps


class Traffic(LabTest):
    def assert_traffic_passes(self, tunnel):
        client, server = tunnel.client_ns, tunnel.server_ns
        for family in (4, 6):
            client_address, server_address = INNER[family]
            self.assertEqual(ping(client, server_address).received, 3)
            self.assertEqual(ping(server, client_address).received, 3)
            for way in ((), ("-R",)):
                report = iperf(server, client, server_address, *way)
                self.assertGreater(tcp_mbps(report), 100, (family, way))
        self.assertGreater(tcp_mbps(iperf(server, client, INNER[4][1], "-P", 4, "--bidir")), 50)

    @each(io=("io_uring", "epoll"))
    @each(outer=(4, 6))
    def test_ping_and_tcp_both_ways(self, io, outer):
        tunnel = Tunnel(self.lab, outer=outer, both={"performance": {"io": io}}).start()
        self.assert_traffic_passes(tunnel)
        for daemon in tunnel.daemons:
            self.assertEqual(daemon.status()["io"], io)

    @each(io=("io_uring", "epoll"))
    def test_datagrams_of_every_length_arrive_once_and_whole(self, io):
        tunnel = Tunnel(self.lab, both={"performance": {"io": io},
                                        "network": {"mtu": 1412}}).start()
        for family in (4, 6):
            for size in ("64", "16-1384", "1364", "16-9000", "40000-65000"):
                if family == 6 and size == "16-1384":
                    size = "16-1364"
                rate = 1000 if size.startswith("4") else 10000
                with self.subTest(family=family, size=size):
                    got, sent = flood(tunnel.server_ns, tunnel.client_ns, INNER[family][1],
                                      size=size, rate=rate, flows=4)
                    self.assertGreater(sent["sent"], 0)
                    self.assertEqual((got["received"], got["lost"], got["doubled"], got["damaged"]),
                                     (sent["sent"], 0, 0, 0))

    @each(cipher=("aes-256-gcm", "chacha20-poly1305"))
    @each(aead=("ipsec-mb", "sodium"))
    def test_every_cipher_and_back_end(self, cipher, aead):
        # The server picks the first of its own that the client has too.
        ciphers = [cipher] + [each for each in ("chacha20-poly1305",) if each != cipher]
        tunnel = Tunnel(self.lab, both={"tunnel": {"ciphers": ciphers}},
                        server={"performance": {"aead": aead}}).start()
        self.assertEqual(tunnel.client.peer()["cipher"], cipher)
        self.assertEqual(tunnel.server.peer()["cipher"], cipher)
        self.assertIn(aead, tunnel.server.status()["aead"])
        got, sent = flood(tunnel.server_ns, tunnel.client_ns, INNER[4][1], size="16-1384",
                          rate=5000, seconds=0.5)
        self.assertEqual(got["received"], sent["sent"])
        self.assertGreater(tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1])), 100)

    def test_udp_of_iperf_at_a_moderate_rate(self):
        tunnel = Tunnel(self.lab).start()
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-u", "-b", "100M",
                           "-l", "1200", *way)
            # Its small socket buffer may lose some on a busy machine; the tunnel may not.
            self.assertLess(report["end"]["sum"]["lost_percent"], 5)
        client, server = tunnel.client.peer(), tunnel.server.peer()
        self.assertEqual((client["rx_packets"], server["rx_packets"]),
                         (server["tx_packets"], client["tx_packets"]))

    def test_the_server_may_start_last(self):
        tunnel = Tunnel(self.lab)
        tunnel.client.start()
        self.assertFalse(tunnel.client.is_established())
        tunnel.server.start()
        tunnel.wait()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_preshared_key_joins_only_those_who_have_the_same(self):
        tunnel = Tunnel(self.lab)
        files = []
        for name in ("one", "two"):
            files.append(Identity(self.lab, "psk-" + name).file)
        for daemon in tunnel.daemons:
            daemon.config["tunnel"]["peers"][0]["preshared_key_file"] = files[0]
        tunnel.start()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
        self.assertEqual(tunnel.client.stop(), [])
        tunnel.client.config["tunnel"]["peers"][0]["preshared_key_file"] = files[1]
        tunnel.client.start()
        with self.assertRaises(AssertionError):
            tunnel.client.wait_established(seconds=2)
