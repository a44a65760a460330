"""A server with several clients: each gets its own packets, and nobody speaks for another.

    client2 ┐
    client3 ┤
    client4 ┼─ switch ── server 10.20.1.1      client N: 10.20.1.N outside, 10.77.0.N inside
    client5 ┤
    client6 ┘
"""
import natives
import packets
from capture import Injector, Tap, addresses
from daemon import Daemon, Identity
from lab import eventually
from lab_test import LabTest
from topology import client_config, server_config
from traffic import flood, iperf, ping, tcp_mbps

NUMBERS = range(2, 7)


class ManyClients(LabTest):
    beside_others = True

    def setUp(self):
        super().setUp()
        self.server_ns = self.lab.namespace("server")
        self.machines = {number: self.lab.namespace(f"client{number}") for number in NUMBERS}
        self.lab.switch("switch", [(self.server_ns, "10.20.1.1/24")] + [
            (ns, f"10.20.1.{number}/24") for number, ns in self.machines.items()])
        self.hub = Identity(self.lab, "hub")
        people = {number: Identity(self.lab, f"client{number}") for number in NUMBERS}
        # Client 6 owns a whole net, of which client 5's address is an exception.
        owned = {number: [f"10.77.0.{number}/32", f"fd77::{number}/128"] for number in NUMBERS}
        owned[6] += ["10.90.0.0/16"]
        owned[5] += ["10.90.5.0/24"]
        self.server = Daemon(self.server_ns, "server", server_config(
            self.hub, [(people[number], owned[number], None) for number in NUMBERS]))
        self.server.start()
        self.clients = {
            number: Daemon(ns, f"client{number}", client_config(
                people[number], self.hub, "10.20.1.1", number,
                peer={"allowed_ips": ["10.77.0.0/24", "fd77::/64", "10.90.0.0/16"]})).start()
            for number, ns in self.machines.items()}
        for number, client in self.clients.items():
            client.wait_established()
            self.server.wait_established(f"client{number}")

    def test_each_gets_its_own_packets(self):
        taps = {number: Tap(ns, "braid0") for number, ns in self.machines.items()}
        for number, ns in self.machines.items():
            for address in (f"10.77.0.{number}", f"fd77::{number}"):
                self.assertEqual(ping(self.server_ns, address).received, 3)
            self.assertEqual(ping(ns, "10.77.0.1").received, 3)
            got, sent = flood(ns, self.server_ns, f"10.77.0.{number}", size="16-1300", rate=3000,
                              seconds=0.3, flows=4)
            self.assertEqual((got["received"], got["damaged"]), (sent["sent"], 0))
        for number, tap in taps.items():
            with tap:
                inner = {addresses(packet)[1] for packet in tap.packets()}
                self.assertEqual(inner - {f"10.77.0.{number}", f"fd77::{number}"}, set())

    def test_clients_reach_each_other_through_the_server(self):
        self.server_ns.forward()
        self.assertEqual(ping(self.machines[2], "10.77.0.3").received, 3)
        self.assertEqual(ping(self.machines[4], "fd77::5").received, 3)
        report = iperf(self.machines[3], self.machines[2], "10.77.0.3")
        self.assertGreater(tcp_mbps(report), 50)

    def test_all_at_once(self):
        receiver = self.server_ns.start("receive", natives.path("udp_flood"), "receive",
                                        "--port", 5300)
        eventually(lambda: "listening" in receiver.err(), 5, "udp_flood listens")
        for ns in self.machines.values():
            ns.start("send", natives.path("udp_flood"), "send", "--to", "10.77.0.1", "--port", 5300,
                     "--rate", 2000, "--size", 200, "--seconds", 2)
        report = iperf(self.server_ns, self.machines[2], "10.77.0.1", seconds=2)
        self.assertGreater(tcp_mbps(report), 20)
        for number in NUMBERS:
            eventually(lambda: self.server.peer(f"client{number}")["rx_bytes"] > 500_000, 5,
                       f"client {number} is heard")

    def test_the_longest_prefix_decides(self):
        with Tap(self.machines[5], "braid0") as five, Tap(self.machines[6], "braid0") as six, \
                Injector(self.server_ns, "braid0") as injector:
            to_five = packets.udp_packet("10.77.0.1", "10.90.5.9")
            to_six = packets.udp_packet("10.77.0.1", "10.90.6.9")
            injector.send(to_five)
            injector.send(to_six)
            self.assertEqual(five.wait(1, lambda p: p in (to_five, to_six)), [to_five])
            self.assertEqual(six.wait(1, lambda p: p in (to_five, to_six)), [to_six])

    def test_an_unknown_destination_is_dropped_and_counted(self):
        before = self.server.drops()["no_route"]
        taps = [Tap(ns, "braid0") for ns in self.machines.values()]
        strays = [packets.udp_packet("10.77.0.1", "10.77.0.200", sport=port)
                  for port in range(100, 120)]
        strays += [packets.udp_packet("fd77::1", "fd99::1", sport=port) for port in range(100, 120)]
        with Injector(self.server_ns, "braid0") as injector:
            for stray in strays:
                injector.send(stray)
        eventually(lambda: self.server.drops()["no_route"] >= before + 40, 3, "all are counted")
        for tap in taps:
            with tap:
                self.assertEqual(tap.packets(lambda packet: packet in strays), [])

    def test_a_spoofed_source_is_dropped_and_counted(self):
        before = self.server.drops()["spoofed_source"]
        forged = []
        for source in ("10.77.0.3", "10.77.0.1", "8.8.8.8", "10.90.5.1", "10.90.6.1"):
            forged += [packets.udp_packet(source, "10.77.0.1", sport=port) for port in range(10)]
        for source in ("fd77::3", "2001:db8::1", "fe80::1"):
            forged += [packets.udp_packet(source, "fd77::1", sport=port) for port in range(10)]
        with Tap(self.server_ns, "braid0") as tap, \
                Injector(self.machines[2], "braid0") as injector:
            for packet in forged:
                injector.send(packet)
            eventually(lambda: self.server.drops()["spoofed_source"] >= before + len(forged), 3,
                       "all are counted")
            self.assertEqual(tap.packets(lambda packet: packet in forged), [])
        # It is not cut off for that: its own packets pass.
        self.assertEqual(ping(self.machines[2], "10.77.0.1").received, 3)

    def test_one_that_stops_does_not_disturb_the_others(self):
        self.assertEqual(self.clients[2].stop(), [])
        self.clients[3].kill()
        for number in (4, 5, 6):
            self.assertEqual(ping(self.server_ns, f"10.77.0.{number}").received, 3)
        eventually(lambda: not self.server.peer("client2")["established"], 3, "client 2 is gone")
