"""Both ends of a lane keep to one worker each, whatever the numbers of workers: the kernel brings
packets to their owner, and next to none is handed from one worker to another.

    client ──veth── server

More workers than the machine has cores run here too: they share them.
"""
from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import flood, iperf

LANES = 16
FLOWS = 64
MOST_HANDED_OVER = 0.001  # of all packets


def without_send_offloads(ns, device):
    """Datagrams leave one by one; who receives them joins them again, in a thread of the kernel."""
    ns.ethtool(device, tx_udp_segmentation="off", gso="off", tso="off", gro="on")
    ns.run("sh", "-c", f"echo 1 > /sys/class/net/{device}/threaded")


def udp_reads(ns):
    """How often a program of this machine has received from a UDP socket."""
    with ns.entered():
        with open("/proc/thread-self/net/snmp", encoding="ascii") as file:
            names, values = (line.split() for line in file if line.startswith("Udp:"))
    return int(values[names.index("InDatagrams")])


class LaneSpread(LabTest):
    def start(self, workers, coalesced=False, lanes=(LANES, LANES)):
        of = lambda end: {"performance": {"workers": workers[end]},
                          "tunnel": {"lanes": lanes[end]}}
        tunnel = Tunnel(self.lab, client=of(0), server=of(1))
        if coalesced:
            without_send_offloads(tunnel.client_ns, "server")
            without_send_offloads(tunnel.server_ns, "client")
        return tunnel.start()

    def send_many_flows(self, tunnel):
        """TCP and UDP, IPv4 and IPv6, both ways."""
        client, server = tunnel.client_ns, tunnel.server_ns
        for family in (4, 6):
            at_client, at_server = INNER[family]
            for to_ns, from_ns, address in ((server, client, at_server),
                                            (client, server, at_client)):
                got, sent = flood(to_ns, from_ns, address, size="16-1300", rate=20000,
                                  seconds=0.3, flows=FLOWS)
                self.assertGreater(sent["sent"], FLOWS)
                self.assertEqual((got["late"], got["doubled"], got["damaged"]), (0, 0, 0))
            report = iperf(server, client, at_server, "-P", 16, "--bidir")
            for way in ("sum_received", "sum_received_bidir_reverse"):
                self.assertGreater(report["end"][way]["bytes"], 1 << 20)

    def assert_lanes_spread(self, daemon, count, lanes=LANES):
        status = daemon.status()
        workers = status["workers"]
        self.assertEqual(len(workers), count)
        self.assertEqual(status["offloads"]["steering"], "bpf" if count > 1 else "ring")
        owners = [lane for worker in workers for lane in worker["lanes"]]
        self.assertEqual(sorted(owners), list(range(lanes)), "each lane has one worker")
        for number, worker in enumerate(workers):
            with self.subTest(end=daemon.name, worker=number):
                self.assertIn(len(worker["lanes"]), (lanes // count, -(-lanes // count)))
                self.assertGreater(worker["rx_packets"], 0)
                self.assertGreater(worker["tx_packets"], 0)
        packets = sum(worker["rx_packets"] + worker["tx_packets"] for worker in workers)
        self.assertLessEqual(status["handed_over"], MOST_HANDED_OVER * packets,
                             f"of {packets} packets at the {daemon.name}")
        self.assertEqual(status["handed_over"], sum(each["handed_over"] for each in workers))
        self.assertEqual({name: status["drops"][name] for name in ("bad_lane", "inbox_full")},
                         {"bad_lane": 0, "inbox_full": 0})

    @each(workers=((1, 1), (2, 2), (3, 3), (1, 16), (16, 1), (2, 3), (4, 8), (8, 3), (16, 16)))
    def test_workers(self, workers):
        tunnel = self.start(workers)
        self.send_many_flows(tunnel)
        for daemon, count in zip(tunnel.daemons, workers):
            self.assert_lanes_spread(daemon, count)

    @each(workers=((2, 2), (3, 2), (4, 8), (16, 16)))
    def test_receiving_kernel_coalesces(self, workers):
        tunnel = self.start(workers, coalesced=True)
        # Inside there is TCP alone, so what is read from UDP sockets is the tunnel's.
        for daemon, way in ((tunnel.server, ()), (tunnel.client, ("-R",))):
            packets, reads = daemon.peer()["rx_packets"], udp_reads(daemon.ns)
            iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 16, *way)
            packets, reads = daemon.peer()["rx_packets"] - packets, udp_reads(daemon.ns) - reads
            self.assertLess(reads, packets, "the kernel has joined datagrams")
        self.send_many_flows(tunnel)
        for daemon, count in zip(tunnel.daemons, workers):
            self.assert_lanes_spread(daemon, count)

    def test_a_client_steers_by_the_lanes_that_were_agreed_on(self):
        tunnel = self.start((3, 3), lanes=(16, 6))
        self.send_many_flows(tunnel)
        for daemon in tunnel.daemons:
            self.assert_lanes_spread(daemon, 3, lanes=6)
        # So it does when the server has come back with another number.
        self.assertEqual(tunnel.server.stop(), [])
        tunnel.server.config["tunnel"]["lanes"] = 11
        tunnel.server.start()
        tunnel.wait(10)
        before = tunnel.client.status()
        self.send_many_flows(tunnel)
        after = tunnel.client.status()
        packets = after["peers"][0]["tx_packets"] - before["peers"][0]["tx_packets"]
        self.assertLessEqual(after["handed_over"] - before["handed_over"],
                             MOST_HANDED_OVER * packets)
