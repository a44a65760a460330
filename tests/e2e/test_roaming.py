"""Addresses that change while traffic goes on, and ends that come back.

    client ──veth── server              client ── nat ── server
"""
import threading
import time

from capture import Tap, addresses
from daemon import endpoint
from lab import eventually
from lab_test import LabTest, each
from test_workers import nat_between
from topology import INNER, Tunnel, client_config
from traffic import Pinger, iperf, ping, tcp_mbps


class Roaming(LabTest):
    beside_others = True

    @each(outer=(4, 6))
    def test_the_client_gets_another_address(self, outer):
        tunnel = Tunnel(self.lab, outer=outer).start()
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        first, second = {4: ("10.20.1.1/24", "10.20.1.99/24"),
                         6: ("fd20:1::1/64", "fd20:1::99/64")}[outer]
        eventually(pings.answers, 3, "ping is answered")
        tunnel.client_ns.ip(f"addr add {second} dev server")
        tunnel.client_ns.ip(f"addr del {first} dev server")
        moved = time.time()
        pings.wait_for_answer_after(moved + 0.05, 5)
        remote = endpoint(second.split("/")[0], "")
        eventually(lambda: tunnel.server.path()["remote"].startswith(remote), 5,
                   "the server knows the new address")
        for family in (4, 6):
            self.assertEqual(ping(tunnel.server_ns, INNER[family][0]).received, 3)
        self.assertGreater(tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1])), 50)
        self.assertGreater(tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-R")),
                           50)
        pings.stop()
        self.assertLess(pings.longest_gap(), 5)

    @each(way=("up", "down"))
    def test_tcp_goes_on_through_a_change_of_address(self, way):
        tunnel = Tunnel(self.lab).start()
        report = {}

        def load():
            report.update(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 4,
                                *(["-R"] if way == "down" else []), seconds=6))
        thread = threading.Thread(target=load)
        thread.start()
        time.sleep(2)
        tunnel.client_ns.ip("addr add 10.20.1.99/24 dev server")
        tunnel.client_ns.ip("addr del 10.20.1.1/24 dev server")
        thread.join()
        last = report["intervals"][-1]["sum"]["bits_per_second"] / 1e6
        self.assertGreater(last, 50)

    def test_a_nat_gives_other_ports(self):
        client, nat, server = nat_between(self.lab)
        tunnel = Tunnel(self.lab, machines=(client, server), server_address="10.30.1.2").start()
        pings = Pinger(client, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        nat.masquerade('oifname "server"', "30000-39999")
        nat.run("conntrack", "-F", check=False)
        moved = time.time()
        pings.wait_for_answer_after(moved + 0.05, 5)
        eventually(lambda: tunnel.server.path()["remote"].startswith("10.30.1.1:3"), 5,
                   "the server knows the new port")
        for family in (4, 6):
            self.assertEqual(ping(server, INNER[family][0]).received, 3)
        for way in ((), ("-R",)):
            report = iperf(server, client, INNER[4][1], "-P", 8, *way)
            self.assertGreater(tcp_mbps(report), 50)
        pings.stop()
        self.assertLess(pings.longest_gap(), 5)

    @each(how=("stop", "kill"))
    def test_the_server_is_back_within_5_s(self, how):
        tunnel = Tunnel(self.lab).start()
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        self.end(tunnel.server, how)
        time.sleep(1)
        tunnel.server.start()
        started = time.time()
        self.assertLess(pings.wait_for_answer_after(started, 6), 5)

    @each(how=("stop", "kill"))
    def test_the_client_is_back_within_5_s(self, how):
        tunnel = Tunnel(self.lab).start()
        pings = Pinger(tunnel.server_ns, INNER[4][0])
        eventually(pings.answers, 3, "ping is answered")
        self.end(tunnel.client, how)
        time.sleep(1)
        tunnel.client.start()
        started = time.time()
        self.assertLess(pings.wait_for_answer_after(started, 6), 5)

    def end(self, daemon, how):
        if how == "kill":
            daemon.kill()
        else:
            self.assertEqual(daemon.stop(), [])

    def test_both_ends_at_once_and_the_clock_back_at_the_beginning(self):
        """What the client remembers of its counter is more than its clock says."""
        tunnel = Tunnel(self.lab).start()
        for daemon in tunnel.daemons:
            daemon.kill()
        tunnel.start()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_wire_that_was_cut_for_a_while(self):
        tunnel = Tunnel(self.lab).start()
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        tunnel.client_ns.ip("link set server down")
        time.sleep(3)
        tunnel.client_ns.ip("link set server up")
        self.assertLess(pings.wait_for_answer_after(time.time(), 6), 5)


class Addresses(LabTest):
    beside_others = True

    @each(outer=(4, 6))
    @each(io=("io_uring", "epoll"))
    def test_the_server_answers_from_the_address_it_was_spoken_to(self, outer, io):
        tunnel = Tunnel(self.lab, outer=outer, both={"performance": {"io": io}})
        more = {4: ("10.20.1.7", "10.20.1.8"), 6: ("fd20:1::7", "fd20:1::8")}[outer]
        for address in more:
            tunnel.server_ns.ip(f"addr add {address}/{24 if outer == 4 else 64} dev client")
        tunnel.server.start()
        for address in more:
            with self.subTest(address=address), Tap(tunnel.client_ns, "server") as tap:
                tunnel.client.config["tunnel"]["peers"][0]["endpoints"] = [endpoint(address)]
                tunnel.client.start()
                tunnel.wait()
                self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
                self.assertGreater(
                    tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 4)), 50)
                sources = {addresses(packet)[0] for packet in tap.packets(self.is_udp)}
                self.assertEqual(sources, {address})
                self.assertTrue(tunnel.server.path()["local"].startswith(endpoint(address, "")))
                self.assertEqual(tunnel.client.stop(), [])

    def is_udp(self, packet):
        return (packet[9] if packet[0] >> 4 == 4 else packet[6]) == 17

    def test_a_path_from_a_given_address_and_device(self):
        tunnel = Tunnel(self.lab)
        tunnel.client_ns.ip("addr add 10.20.1.50/24 dev server")
        tunnel.server.start()
        for path, source in (({"name": "wire", "address": "10.20.1.50"}, "10.20.1.50:"),
                             ({"name": "wire", "interface": "server"}, "10.20.1.1:")):
            tunnel.client.config = {
                **tunnel.client.config,
                "tunnel": client_config(tunnel.branch, tunnel.hub, "10.20.1.2",
                                        path=path)["tunnel"]}
            tunnel.client.start()
            tunnel.wait()
            self.assertEqual(tunnel.client.path()["name"], "wire")
            eventually(lambda: tunnel.server.path()["remote"].startswith(source), 3, source)
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)
            self.assertEqual(tunnel.client.stop(), [])

    def test_a_host_name_as_endpoint(self):
        tunnel = Tunnel(self.lab, server_address="localhost")
        tunnel.client.config["tunnel"]["peers"][0]["endpoints"] = ["localhost:7700"]
        # Both on one machine: the name resolves to its own address.
        tunnel.server.start()
        tunnel.client.ns = tunnel.server_ns
        tunnel.client.config["network"]["device"] = "braid1"
        tunnel.client.config["network"]["addresses"] = ["10.78.0.2/24"]
        tunnel.client.start()
        tunnel.wait()
