"""Who carries a row's traffic: braid, the kernel's MPTCP, or TCP over a bare link.

    client ══ link1 ══ server        each measurement has machines and links of its own,
      └══════ link2 ════┘            so that none finds what another has left
"""
import contextlib
import re
import socket

import lab as labs
from bond import Bond, join
from lab import LabError
from traffic import Iperf, tcp_mbps

CONGESTION_CONTROLS = ("cubic", "bbr")
INNER_SERVER, OUTER_SERVER = "10.77.0.1", "10.20.1.2"
MPTCP = 262  # the protocol's number; Python 3.11 has no name for it
MPTCPIZE = ("mptcpize", "run")


class Carrier:
    """Two machines and the address at which the one reaches the other."""

    def __init__(self, client, server, links, address, protocol=socket.IPPROTO_TCP):
        self.client, self.server = client, server
        self.links = links
        self.address = address
        self.protocol = protocol

    def tcp_flow(self, congestion_control, seconds, warm_up):
        return Iperf(self.server, self.client, self.address, "-C", congestion_control,
                     seconds=seconds, omit=warm_up,
                     wrap=MPTCPIZE if self.protocol == MPTCP else ())

    def check(self, connections):
        """Fails unless each of the connections so far had a subflow on every link."""
        if self.protocol != MPTCP:
            return
        counters = self.client.run("nstat", "-asz", "MPTcpExtMPJoinSynAckRx").stdout
        joined = int(re.search(r"MPJoinSynAckRx\s+(\d+)", counters)[1])
        wanted = connections * (len(self.links) - 1)
        if joined < wanted:
            raise LabError(f"MPTCP has joined {joined} of {wanted} more subflows")


@contextlib.contextmanager
def braid(links, **bonding):
    with labs.Lab() as lab:
        bond = Bond(lab, *links, guarded=False, **bonding)
        yield Carrier(bond.tunnel.client_ns, bond.tunnel.server_ns, bond.links, INNER_SERVER)


@contextlib.contextmanager
def bare(links, protocol=socket.IPPROTO_TCP):
    with labs.Lab() as lab:
        client, server = lab.namespace("client"), lab.namespace("server")
        joined = join(lab, client, server, links)
        yield Carrier(client, server, joined, OUTER_SERVER, protocol)


@contextlib.contextmanager
def mptcp(links):
    """The server tells its other addresses; the client joins each, over the link that leads there:
    one subflow for each link."""
    with bare(links, MPTCP) as carrier:
        for machine in (carrier.client, carrier.server):
            machine.sysctl("net.mptcp.enabled", 1)
            machine.run("ip", "mptcp", "limits", "set", "subflow", 8, "add_addr_accepted", 8)
        for n in range(2, len(links) + 1):
            carrier.server.run("ip", "mptcp", "endpoint", "add", f"10.20.{n}.2", "dev",
                               f"link{n}", "signal")
        yield carrier


def needed_program(carrier_of):
    """Beside braid and linkem."""
    return MPTCPIZE[0] if carrier_of is mptcp else None


def tcp_mbps_over(carrier, congestion_control, seconds, warm_up):
    """What one flow brings across after its warm-up."""
    with carrier.tcp_flow(congestion_control, seconds, warm_up) as flow:
        report = flow.report()
    carrier.check(connections=2)  # one is for control
    return tcp_mbps(report)
