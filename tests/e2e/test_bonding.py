"""Several emulated links as one: what is carried over which of them, and what survives their faults."""
import re
import threading
import time

import natives
from bond import Bond
from capture import ARP, Tap
from lab import eventually, run
from lab_test import each, LabTest
from traffic import tcp_mbps, UDP_PORT


class Bonding(LabTest):
    beside_others = True

    def test_tcp_goes_over_both_links(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 20, "delay_ms": 5})
        before = bond.sent_over()
        report = bond.send(seconds=5)
        carried = [now - then for now, then in zip(bond.sent_over(), before)]
        for one in carried:
            self.assertGreater(one, sum(carried) / 5, carried)
        self.assertGreater(tcp_mbps(report), 20, "more than one link carries")
        self.assertTrue(bond.bond()["active"])

    def test_what_a_single_link_loses_is_sent_again(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5, "loss": 0.03})
        # The bond takes over once something was lost; what was before then is gone.
        bond.send_udp(5)
        self.assertTrue(bond.bond()["active"])
        lost, _ = bond.send_udp(5)
        self.assertGreater(bond.bond()["repairs"], 10)
        self.assertLess(lost, 0.005)
        self.assertGreater(bond.links[0].status()["to_right"]["frames_lost"], 20)

    def test_a_far_link_has_a_bond_until_it_has_shown_that_nothing_limits(self):
        bond = Bond(self.lab, {"rate_mbps": 200, "delay_ms": 5})
        lost, packets = bond.send_udp(5, seconds=2)
        self.assertTrue(bond.bond()["active"], "no more than 2,000 datagrams yet")
        lost_later, packets_later = bond.send_udp(5, seconds=6)
        self.assertFalse(bond.bond()["active"])
        self.assertEqual((lost * packets, lost_later * packets_later), (0, 0))

    def test_a_near_link_has_no_bond_while_nothing_limits(self):
        bond = Bond(self.lab, {"rate_mbps": 200, "delay_ms": 0.5})
        bond.send_udp(5, seconds=2)
        self.assertFalse(bond.bond()["active"])

    def test_what_a_rule_calls_realtime_is_not_sent_again(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5, "loss": 0.03},
                    classes=[{"protocol": "udp", "ports": [UDP_PORT], "class": "realtime"}])
        bond.send_udp(5)
        self.assertTrue(bond.bond()["active"])
        lost, _ = bond.send_udp(5)
        self.assertEqual(bond.bond()["repairs"], 0)
        self.assertGreater(lost, 0.01)

    def lost_and_overhead(self, bond, seconds):
        """Of UDP at 5 Mbit/s, the shares: what the receiver misses, and what the link takes beyond it."""
        payload = 1000
        before = bond.links[0].status()["to_right"]["bytes_in"]
        lost, packets = bond.send_udp(5, size=payload, seconds=seconds)
        taken = bond.links[0].status()["to_right"]["bytes_in"] - before
        around = 28 + 40 + 42  # inner headers, braid, and what is around a datagram
        return lost, taken / (packets * (payload + around)) - 1

    @each(repair=("auto", "off"))
    def test_three_percent_of_loss_are_made_up_for(self, repair):
        bond = Bond(self.lab, {"rate_mbps": 50, "delay_ms": 20, "loss": 0.03}, fec="auto",
                    repair=repair)
        # The bond takes over once something was lost.
        bond.send_udp(5)
        lost, overhead = self.lost_and_overhead(bond, seconds=10)
        self.assertLessEqual(lost, 0.001)
        self.assertLessEqual(overhead, 0.2)
        if repair == "off":
            self.assertGreater(bond.bond()["parity_sent"], 100)
            received = bond.server.status()["peers"][0]["bond"]
            self.assertGreater(received["recovered"], 100)
            self.assertEqual(bond.bond()["repairs"], 0)

    def test_a_ratio_of_parity_is_sent_though_nothing_is_lost(self):
        bond = Bond(self.lab, {"rate_mbps": 50, "delay_ms": 5}, fec=0.25)
        bond.send("-u", "-b", "10M", "-l", "1000", seconds=3)
        sent = bond.bond()
        received = bond.server.status()["peers"][0]["bond"]
        self.assertGreater(sent["parity_sent"], 3 * 1250 * 0.2)
        self.assertEqual(received["unrecoverable"], 0)
        self.assertGreater(tcp_mbps(bond.send(seconds=3)), 25, "TCP goes on beside it")

    def test_nothing_is_lost_in_redundant_when_a_link_goes_silent(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 20, "delay_ms": 15},
                    mode="redundant")

        def fault():
            time.sleep(1)
            bond.links[0].down()
            time.sleep(1)
            bond.links[0].up()
        thread = threading.Thread(target=fault)
        thread.start()
        report = bond.send("-u", "-b", "400k", "-l", "500", seconds=4)["end"]["sum"]
        thread.join()
        self.assertEqual(report["lost_packets"], 0, report)

    @each(mode=("stripe", "preferred"))
    def test_tcp_goes_on_when_a_link_goes_silent_and_uses_it_again(self, mode):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 10, "delay_ms": 15},
                    mode=mode)

        def fault():
            time.sleep(2)
            bond.links[0].down()
            time.sleep(2)
            self.in_fault = bond.sent_over()[1]
            bond.links[0].up()
            self.after_fault = bond.sent_over()[0]
        thread = threading.Thread(target=fault)
        thread.start()
        before = bond.sent_over()[1]
        bond.send(seconds=8)
        thread.join()
        self.assertGreater(self.in_fault - before, 500_000, "the other link carries alone")
        self.assertGreater(bond.sent_over()[0] - self.after_fault, 1_000_000, "it is used again")

    def test_who_is_next_on_a_silent_path_is_asked_several_times_a_second(self):
        # Otherwise the kernel finds out only up to a second later that a link is back.
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 20, "delay_ms": 5})
        client = bond.tunnel.client_ns
        bond.links[0].down()

        def unresolved():
            return re.search("FAILED|INCOMPLETE", client.ip("neigh show dev link1").stdout)
        eventually(lambda: bond.paths_up(bond.client) == 1, 10, "the path is down")
        for name, value in (("base_reachable_time_ms", 100), ("delay_first_probe_time", 0)):
            client.sysctl(f"net.ipv4.neigh.link1.{name}", value)
        client.ip("neigh change 10.20.1.2 dev link1 nud stale")
        eventually(unresolved, 10, "the next hop is not known any more")
        with Tap(client, "link1", outgoing=True, protocols=ARP) as asked:
            time.sleep(3)
            self.assertGreater(len(asked.packets()), 7, "the kernel alone asks three times")

    def test_a_path_is_made_to_stand_by_and_back_while_traffic_runs(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 20, "delay_ms": 5})

        def carried_by_second():
            before = bond.sent_over()
            report = bond.send("-u", "-b", "12M", "-l", "1000", seconds=3)["end"]["sum"]
            self.assertEqual(report["lost_packets"], 0, report)
            first, second = (now - then for now, then in zip(bond.sent_over(), before))
            return second / (first + second)

        def change(*options):
            run(natives.braid(), "path", "set", *options, "--socket", bond.client.socket_path)
        bond.send(seconds=4)  # what the paths carry is learned
        change("p2", "--standby", "--weight", "0.5")
        self.assertLess(carried_by_second(), 0.2)
        path = bond.client.status()["peers"][0]["paths"][1]
        self.assertEqual(path["options"], {"weight": 0.5, "rate_mbps": None, "standby": True})
        change("p2", "--no-standby", "--weight", "1")
        change("p1", "--standby", "--rate", "15")
        self.assertGreater(carried_by_second(), 0.7)
        options = bond.client.status()["peers"][0]["paths"][0]["options"]
        self.assertEqual(options, {"weight": 1, "rate_mbps": 15, "standby": True})
        refused = run(natives.braid(), "path", "set", "p3", "--weight", "2", "--socket",
                      bond.client.socket_path, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn('there is no path "p3"', refused.stderr)

    def test_the_mode_is_switched_while_traffic_runs_and_nothing_is_lost(self):
        bond = Bond(self.lab, {"rate_mbps": 20, "delay_ms": 5}, {"rate_mbps": 20, "delay_ms": 15})
        self.assertEqual(self.mode(bond.client), "stripe\n")

        def switch():
            for mode in ("redundant", "preferred", "stripe", "redundant"):
                time.sleep(1)
                self.mode(bond.client, mode)
        thread = threading.Thread(target=switch)
        thread.start()
        # Both ways at once, each less than the lesser link carries.
        report = bond.send("-u", "-b", "5M", "-l", "1000", "--bidir", seconds=6)["end"]
        thread.join()
        for way in ("sum", "sum_bidir_reverse"):
            self.assertEqual(report[way]["lost_packets"], 0, report[way])
        copies = {daemon.name: daemon.status()["peers"][0]["bond"]["copies"]
                  for daemon in bond.tunnel.daemons}
        # A second and a half of redundant packets at least.
        self.assertGreater(min(copies.values()), 900, copies)
        for daemon in bond.tunnel.daemons:
            self.assertEqual(daemon.status()["peers"][0]["bond"]["mode"], "redundant")
        self.assertIn("stripe\n  branch: sent to in mode redundant", self.mode(bond.server))
        # What is said at the server counts there from then on, and there alone.
        self.mode(bond.server, "preferred")
        self.assertEqual(self.mode(bond.server), "preferred\n")
        self.assertEqual(self.mode(bond.client), "redundant\n")

    @staticmethod
    def mode(daemon, *mode):
        return run(natives.braid(), "mode", *mode, "--socket", daemon.socket_path).stdout
