"""Different numbers of workers and of lanes at the two ends, also with ports rewritten on the way.

    client 10.20.1.1 ── nat 10.20.1.2 ╎ 10.30.1.1 ── 10.30.1.2 server
"""
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import flood, iperf, tcp_mbps


def nat_between(lab):
    """client, nat, server; the nat gives every flow another port."""
    client, nat, server = (lab.namespace(name) for name in ("client", "nat", "server"))
    lab.link(client, "10.20.1.1/24", nat, "10.20.1.2/24")
    lab.link(nat, "10.30.1.1/24", server, "10.30.1.2/24")
    client.ip("route add default via 10.20.1.2")
    nat.forward()
    nat.masquerade('oifname "server"', "20000-29999")
    return client, nat, server


class Workers(LabTest):
    def assert_flows_pass(self, tunnel):
        client, server = tunnel.client_ns, tunnel.server_ns
        for family in (4, 6):
            for to_ns, from_ns, address in ((server, client, INNER[family][1]),
                                            (client, server, INNER[family][0])):
                got, sent = flood(to_ns, from_ns, address, size="16-1300", rate=10000, flows=32)
                self.assertEqual((got["received"], got["late"], got["doubled"], got["damaged"]),
                                 (sent["sent"], 0, 0, 0),
                                 [daemon.drops() for daemon in tunnel.daemons])
        for way in ((), ("-R",)):
            report = iperf(server, client, INNER[4][1], "-P", 16, *way)
            self.assertGreater(tcp_mbps(report), 50)

    @each(kind=((1, 3, "io_uring"), (3, 1, "epoll"), (4, 2, "io_uring"), (2, 4, "epoll")))
    def test_unequal_workers(self, kind):
        *workers, io = kind
        of = lambda count: {"performance": {"workers": count, "pin": False, "io": io}}
        tunnel = Tunnel(self.lab, client=of(workers[0]), server=of(workers[1])).start()
        for daemon, count in zip(tunnel.daemons, workers):
            self.assertEqual(len(daemon.status()["workers"]), count)
        self.assert_flows_pass(tunnel)
        for daemon in tunnel.daemons:
            self.assertEqual({name: n for name, n in daemon.drops().items()
                              if n and name in ("bad_lane", "unauthentic", "replayed")}, {})

    @each(lanes=((1, 16), (128, 7)))
    def test_unequal_lanes(self, lanes):
        of = lambda count: {"tunnel": {"lanes": count}, "performance": {"workers": 2}}
        self.assert_flows_pass(Tunnel(self.lab, client=of(lanes[0]), server=of(lanes[1])).start())

    @each(workers=((2, 4), (3, 2)))
    def test_ports_rewritten_on_the_way(self, workers):
        of = lambda count: {"performance": {"workers": count, "pin": False}}
        client, _, server = nat_between(self.lab)
        tunnel = Tunnel(self.lab, machines=(client, server), server_address="10.30.1.2",
                        client=of(workers[0]), server=of(workers[1])).start()
        self.assert_flows_pass(tunnel)
        self.assertTrue(tunnel.server.path()["remote"].startswith("10.30.1.1:2"))

    # What waits for the process at the other end is no queue on the way.
    def test_a_busy_machine_is_no_slow_link(self):
        tunnel = Tunnel(self.lab).start()
        server = tunnel.server.process
        with ThreadPoolExecutor(1) as aside:
            flooding = aside.submit(flood, tunnel.server_ns, tunnel.client_ns, INNER[4][1],
                                    rate=2000, seconds=3)
            while not flooding.done():
                server.send_signal(signal.SIGSTOP)
                time.sleep(0.045)
                server.send_signal(signal.SIGCONT)
                time.sleep(0.001)
            got, sent = flooding.result()
        self.assertEqual(got["received"], sent["sent"])
        bond = tunnel.client.peer()["bond"]
        sending = tunnel.client.path()["sending"]
        self.assertFalse(bond["active"], sending)
        self.assertEqual(sending["phase"], "startup")
