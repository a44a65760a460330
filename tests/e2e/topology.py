"""The tunnels that most tests are about: one client and one server, and gateways with hosts."""
from daemon import Daemon, Identity, endpoint, merged, PORT

OUTER = {4: ("10.20.1.1", "10.20.1.2"), 6: ("fd20:1::1", "fd20:1::2")}  # client, server
INNER = {4: ("10.77.0.2", "10.77.0.1"), 6: ("fd77::2", "fd77::1")}


def server_config(identity, peers, extra=None):
    """`peers` are triples of an identity, the inner prefixes it owns, and more keys of the peer."""
    return merged({
        "mode": "server",
        "network": {"addresses": ["10.77.0.1/24", "fd77::1/64"]},
        "security": {"private_key_file": identity.file},
        "tunnel": {
            "listen": [{"address": "0.0.0.0", "port": PORT}, {"address": "::", "port": PORT}],
            "peers": [merged({"name": peer.name, "public_key": peer.public, "allowed_ips": owned},
                             more) for peer, owned, more in peers],
        },
    }, extra)


def client_config(identity, server, server_address, number=2, extra=None, peer=None, path=None):
    """`number` is the client's, in its inner addresses."""
    return merged({
        "mode": "client",
        "network": {"addresses": [f"10.77.0.{number}/24", f"fd77::{number}/64"]},
        "security": {"private_key_file": identity.file},
        "tunnel": {
            "peers": [merged({"name": server.name, "public_key": server.public,
                              "endpoints": [endpoint(server_address)],
                              "allowed_ips": ["10.77.0.0/24", "fd77::/64"]}, peer)],
        },
    }, merged({"tunnel": {"paths": [path]}} if path else {}, extra))


class Tunnel:
    """
    client 10.20.1.1, fd20:1::1 ──veth── 10.20.1.2, fd20:1::2 server
      └ 10.77.0.2, fd77::2 ═══════ braid0 ══════ 10.77.0.1, fd77::1 ┘

    The machines may be given; then they are joined already. A lab with several tunnels tells their
    files apart by a suffix.
    """

    def __init__(self, lab, outer=4, both=None, client=None, server=None, machines=None,
                 client_wrap=(), server_wrap=(), client_owns=(), server_owns=(), mtu=1500,
                 server_address=None, peer_of_both=None, guarded=True, suffix="", program=None):
        self.lab = lab
        if machines is None:
            machines = lab.namespace("client"), lab.namespace("server")
            lab.link(machines[0], "10.20.1.1/24 fd20:1::1/64",
                     machines[1], "10.20.1.2/24 fd20:1::2/64", mtu)
        self.client_ns, self.server_ns = machines
        self.hub, self.branch = (Identity(lab, name + suffix) for name in ("hub", "branch"))
        self.server = Daemon(self.server_ns, "server" + suffix, server_config(
            self.hub,
            [(self.branch, ["10.77.0.2/32", "fd77::2/128", *client_owns], peer_of_both)],
            merged(both or {}, server)), server_wrap, guarded, program)
        self.client = Daemon(self.client_ns, "client" + suffix, client_config(
            self.branch, self.hub, server_address or OUTER[outer][1],
            extra=merged(both or {}, client), peer=merged({
                "allowed_ips": ["10.77.0.0/24", "fd77::/64", *server_owns]}, peer_of_both)),
            client_wrap, guarded, program)

    def start(self):
        self.server.start()
        self.client.start()
        self.wait()
        return self

    def wait(self, seconds=5):
        self.client.wait_established(seconds=seconds)
        self.server.wait_established(seconds=seconds)

    @property
    def daemons(self):
        return self.client, self.server


class Gateways(Tunnel):
    """
    left 10.88.1.2 ── client ══ braid ══ server ── right 10.88.2.2
         fd88:1::2                                  fd88:2::2

    The hosts know nothing of the tunnel; client and server forward.
    """

    def __init__(self, lab, **options):
        super().__init__(lab, client_owns=("10.88.1.0/24", "fd88:1::/64"),
                         server_owns=("10.88.2.0/24", "fd88:2::/64"), **options)
        self.left, self.right = lab.namespace("left"), lab.namespace("right")
        for host, gateway, net in ((self.left, self.client_ns, 1), (self.right, self.server_ns, 2)):
            gateway.forward()
            lab.link(host, f"10.88.{net}.2/24 fd88:{net}::2/64",
                     gateway, f"10.88.{net}.1/24 fd88:{net}::1/64")
            host.ip(f"route add default via 10.88.{net}.1")
            host.ip(f"route add default via fd88:{net}::1")

    def start(self):
        super().start()
        self.add_routes()
        return self

    def add_routes(self):
        for gateway, net in ((self.client_ns, 2), (self.server_ns, 1)):
            gateway.ip(f"route replace 10.88.{net}.0/24 dev braid0")
            gateway.ip(f"route replace fd88:{net}::/64 dev braid0")


class Star:
    """
    client2 ┐
    client3 ┴─ switch ── server 10.20.1.1      client N: 10.20.1.N outside, 10.77.0.N inside

    `extra` goes into the server's configuration.
    """
    SERVER = "10.77.0.1"

    def __init__(self, lab, numbers=(2, 3), extra=None, guarded=True):
        self.server_ns = lab.namespace("server")
        self.machines = {number: lab.namespace(f"client{number}") for number in numbers}
        lab.switch("switch", [(self.server_ns, "10.20.1.1/24")] + [
            (ns, f"10.20.1.{number}/24") for number, ns in self.machines.items()])
        hub = Identity(lab, "hub")
        people = {number: Identity(lab, f"client{number}") for number in numbers}
        self.server = Daemon(self.server_ns, "server", server_config(hub, [
            (people[number], [f"10.77.0.{number}/32"], None) for number in numbers], extra),
            guarded=guarded)
        self.clients = {
            number: Daemon(ns, f"client{number}", client_config(
                people[number], hub, "10.20.1.1", number), guarded=guarded)
            for number, ns in self.machines.items()}

    def start(self):
        self.server.start()
        for client in self.clients.values():
            client.start()
        for number, client in self.clients.items():
            client.wait_established()
            self.server.wait_established(f"client{number}")
        return self
