"""Where a device or the kernel refuses an offload or a call, braid goes on without it and says so.

    client ──veth── server
"""
import natives
from lab_test import LabTest, each
from topology import INNER, Gateways, Tunnel
from traffic import flood, iperf, ping, tcp_mbps


def without_capabilities(*names):
    dropped = ",".join("-" + name for name in names)
    return ("setpriv", "--bounding-set", dropped, "--inh-caps", dropped)


def sent_through(ns, daemon):
    """Packets and super-packets that the device took, and the packets that they were sealed as."""
    taken = ns.counter(daemon.device, "tx_packets")
    return taken, sum(peer["tx_packets"] for peer in daemon.status()["peers"])


class Offloads(LabTest):
    def assert_traffic_passes(self, tunnel, least_mbps=50):
        for family in (4, 6):
            client, server = INNER[family]
            self.assertEqual(ping(tunnel.client_ns, server).received, 3)
            for way in ((), ("-R",)):
                self.assertGreater(
                    tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, server, *way)), least_mbps)
            got, sent = flood(tunnel.server_ns, tunnel.client_ns, server, size="16-1360",
                              rate=5000, seconds=0.5, flows=8)
            self.assertEqual((got["received"], got["damaged"]), (sent["sent"], 0))

    @each(io=("io_uring", "epoll"))
    def test_without_any(self, io):
        tunnel = Tunnel(self.lab, both={"performance": {"offloads": False, "io": io}}).start()
        self.assert_traffic_passes(tunnel)
        offloads = tunnel.client.status()["offloads"]
        self.assertEqual([name for name, on in offloads.items() if on is True], ["vnet_hdr"])

    def test_with_on_one_side_and_without_on_the_other(self):
        tunnel = Gateways(self.lab, client={"performance": {"offloads": False}}).start()
        self.assert_traffic_passes(tunnel)
        for address in ("10.88.2.2", "fd88:2::2"):
            for way in ((), ("-R",)):
                self.assertGreater(tcp_mbps(iperf(tunnel.right, tunnel.left, address, *way)), 50)

    @each(io=("io_uring", "epoll"))
    @each(outer=(4, 6))
    def test_a_wire_without_segmentation_and_checksums(self, outer, io):
        tunnel = Tunnel(self.lab, outer=outer, both={"performance": {"io": io}})
        for ns, device in ((tunnel.client_ns, "server"), (tunnel.server_ns, "client")):
            ns.ethtool(device, tx="off", rx="off", tso="off", gso="off", gro="off", sg="off",
                       tx_udp_segmentation="off")
        tunnel.start()
        self.assert_traffic_passes(tunnel)

    @each(listed=("off", "on"))
    def test_receive_coalescing_by_threaded_polling(self, listed):
        """Datagrams arrive one by one and the receiver's kernel joins them again."""
        tunnel = Tunnel(self.lab, both={"performance": {"workers": 2}})
        for ns, device in ((tunnel.client_ns, "server"), (tunnel.server_ns, "client")):
            ns.ethtool(device, tx_udp_segmentation="off", gso="off", tso="off", gro="on",
                       rx_gro_list=listed, rx_udp_gro_forwarding=listed)
            ns.run("sh", "-c", f"echo 1 > /sys/class/net/{device}/threaded")
        tunnel.start()
        self.assert_traffic_passes(tunnel)
        got, sent = flood(tunnel.server_ns, tunnel.client_ns, INNER[4][1], size="1200",
                          rate=5000, flows=16)
        self.assertEqual((got["received"], got["late"]), (sent["sent"], 0))

    @each(family=(4, 6))
    def test_super_packets_of_others_reach_the_device_whole(self, family):
        """What a host behind a gateway sent as one is not cut before it is sealed."""
        tunnel = Gateways(self.lab).start()
        for gateway, daemon, to_ns, from_ns, net in (
                (tunnel.client_ns, tunnel.client, tunnel.right, tunnel.left, 2),
                (tunnel.server_ns, tunnel.server, tunnel.left, tunnel.right, 1)):
            address = {4: f"10.88.{net}.2", 6: f"fd88:{net}::2"}[family]
            reads_before, packets_before = sent_through(gateway, daemon)
            iperf(to_ns, from_ns, address)
            reads, packets = sent_through(gateway, daemon)
            self.assertGreater(packets - packets_before, 10 * (reads - reads_before))

    @each(io=("io_uring", "epoll"))
    def test_datagrams_that_the_kernel_cuts_and_joins(self, io):
        """As QUIC stacks send and receive them; beside the tunnel's own use of the same."""
        tunnel = Tunnel(self.lab, both={"performance": {"io": io}}).start()
        for family in (4, 6):
            for to_ns, from_ns, address in (
                    (tunnel.server_ns, tunnel.client_ns, INNER[family][1]),
                    (tunnel.client_ns, tunnel.server_ns, INNER[family][0])):
                got, sent = flood(to_ns, from_ns, address, size="1200-1350", rate=5000, flows=4,
                                  uso=48)
                self.assertEqual((got["received"], got["bytes"], got["doubled"], got["damaged"]),
                                 (sent["sent"], sent["bytes"], 0, 0))

    def test_io_uring_refused(self):
        refuse = (natives.path("refuse_syscalls"), "io_uring_setup")
        tunnel = Tunnel(self.lab, client_wrap=refuse, server_wrap=refuse).start()
        for daemon in tunnel.daemons:
            self.assertEqual(daemon.status()["io"], "epoll")
        warnings = tunnel.client.status()["warnings"]
        self.assertTrue(any("io_uring" in warning for warning in warnings), warnings)
        self.assert_traffic_passes(tunnel)

    def test_io_uring_refused_to_who_insists(self):
        tunnel = Tunnel(self.lab, client={"performance": {"io": "io_uring"}},
                        client_wrap=(natives.path("refuse_syscalls"), "io_uring_setup"))
        tunnel.client.start(ready=False)
        self.assertEqual(tunnel.client.process.wait(5), 1)
        self.assertIn("io_uring", tunnel.client.log())
        self.assertNotIn("braid0", tunnel.client_ns.devices())
        tunnel.client.process = None

    @each(how=("filter", "capabilities"))
    def test_without_the_right_to_load_programs_into_the_kernel(self, how):
        """Packets that come to the wrong worker are handed over instead."""
        if how == "filter":
            wrap = (natives.path("refuse_syscalls"), "bpf")
        else:
            with open("/proc/sys/kernel/unprivileged_bpf_disabled", encoding="ascii") as file:
                if file.read().strip() == "0":
                    self.skipTest("here everybody may load such programs")
            wrap = without_capabilities("bpf", "sys_admin", "perfmon")
        tunnel = Tunnel(self.lab, client_wrap=wrap, server_wrap=wrap,
                        both={"performance": {"workers": 2}}).start()
        for daemon in tunnel.daemons:
            self.assertEqual(daemon.status()["offloads"]["steering"], "ring")
        self.assert_traffic_passes(tunnel)
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 8, *way)
            self.assertGreater(tcp_mbps(report), 50)

    def test_with_it_the_kernel_steers(self):
        tunnel = Tunnel(self.lab, both={"performance": {"workers": 2}}).start()
        self.assertEqual(tunnel.client.status()["offloads"]["steering"], "bpf")
