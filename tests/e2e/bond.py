"""Several links between two machines, and a tunnel that bonds them."""
from daemon import merged
from emulated_link import EmulatedLink
from lab import eventually
from topology import Tunnel
from traffic import flood, iperf


def join(lab, client, server, links):
    """Links from 10.20.N.1 to 10.20.N.2, each with its settings, or with None a veth pair."""
    joined = []
    for n, settings in enumerate(links, 1):
        ends = (client, f"10.20.{n}.1/24", server, f"10.20.{n}.2/24")
        if settings is None:
            lab.link(*ends, name=f"link{n}")
        else:
            joined.append(EmulatedLink(lab, *ends, name=f"link{n}", seed=n, **settings))
    return joined


class Bond:
    """A tunnel over such links. `bonding` is said of it in both configurations, as `both` is."""

    def __init__(self, lab, *links, guarded=True, both=None, names=None, **bonding):
        client, server = lab.namespace("client"), lab.namespace("server")
        self.links = join(lab, client, server, links)
        names = names or [f"p{n}" for n in range(1, len(links) + 1)]
        paths = [{"name": names[n - 1], "address": f"10.20.{n}.1", "endpoint": f"10.20.{n}.2:7700"}
                 for n in range(1, len(links) + 1)]
        self.tunnel = Tunnel(lab, machines=(client, server), guarded=guarded,
                             client={"tunnel": {"paths": paths}},
                             both=merged({"tunnel": {"bonding": bonding}}, both)).start()
        self.client, self.server = self.tunnel.client, self.tunnel.server
        for daemon in self.tunnel.daemons:
            eventually(lambda daemon=daemon: self.paths_up(daemon) == len(links), 10,
                       "every path is up")

    @staticmethod
    def paths_up(daemon):
        return sum(path["state"] in ("up", "standby")
                   for path in daemon.status()["peers"][0]["paths"])

    def send(self, *options, seconds=3):
        return iperf(self.tunnel.server_ns, self.tunnel.client_ns, "10.77.0.1", *options,
                     seconds=seconds)

    def send_udp(self, mbps, size=1000, seconds=3):
        """Sends numbered datagrams; returns the share that was lost, and how many were sent.

        Where links lose: iperf3 waits forever for its first datagram.
        """
        got, sent = flood(self.tunnel.server_ns, self.tunnel.client_ns, "10.77.0.1", size=str(size),
                          seconds=seconds, rate=mbps * 1e6 / 8 / size)
        return 1 - got["received"] / sent["sent"], sent["sent"]

    def sent_over(self):
        """Bytes that each link has carried to the server."""
        return [link.status()["to_right"]["bytes_delivered"] for link in self.links]

    def bond(self):
        return self.client.status()["peers"][0]["bond"]
