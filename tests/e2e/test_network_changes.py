"""The machine's network changes while everything goes through the tunnel: paths and what stays out of
it follow, and nothing is lost on the path that did not change.

    client ═ one: provider ═╗            host: the LAN, which the client is in
           ═ two: uplink2  ═╩═ provider ── server, far        (see machines.py)
"""
import time

from lab import eventually
from machines import FAR, SERVER, Machines, seen_as
from traffic import Pinger

PATHS = [{"name": "one", "interface": "provider"},
         {"name": "two", "interface": "uplink2", "standby": True}]
# A second by the requirements, and as much again for a machine that has other things to do; the
# look that finds what was not told comes every five.
SECONDS = 2


class NetworkChanges(Machines):
    def start(self, **network):
        self.set_up(client={"network": network} if network else None)
        self.client.config["tunnel"]["paths"] = PATHS
        for daemon in self.tunnel.daemons:
            daemon.config["tunnel"]["peers"][0]["keepalive_s"] = 0.1
        self.add_uplink2()
        self.tunnel.start()
        self.wait_two("up")
        self.eventually_seen_as(self.client_ns, FAR[4], SERVER[4])
        self.pings = Pinger(self.client_ns, FAR[4], interval=0.02)
        eventually(self.pings.answers, 3, "ping is answered")

    def two(self):
        return next(path for path in self.client.peer()["paths"] if path["name"] == "two")

    def wait_two(self, state, **wanted):
        """Until the second path is in this state and has these values."""
        def there():
            path = self.two()
            return (path["state"] != "down") == (state == "up") and all(
                path[name] == value for name, value in wanted.items())
        eventually(there, SECONDS, f"path two is {state} {wanted}")

    def assert_nothing_lost(self):
        """Of what went over the first path all the while; and without a restart."""
        self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])
        changed = time.time()
        eventually(lambda: len([each for each in self.pings.answers() if each > changed]) > 10, 5,
                   "pings go on")
        pings = self.pings.stop()
        # The last one may be under way.
        self.assertLessEqual(pings.sent - pings.received, 1, pings.text[-300:])
        self.assertIsNone(self.client.process.poll())

    def test_the_address_of_a_path_changes(self):
        self.start()
        self.client_ns.ip("addr add 10.21.1.9/24 dev uplink2")
        self.client_ns.ip("addr del 10.21.1.1/24 dev uplink2")
        self.client_ns.ip("route replace default via 10.21.1.254 dev uplink2 metric 2000")
        self.wait_two("up", local="10.21.1.9")
        eventually(lambda: any(path["remote"].startswith("10.21.1.9:")
                               for path in self.server.peer()["paths"]), SECONDS,
                   "the server knows the new address")
        self.assert_nothing_lost()

    def test_the_gateway_of_a_path_changes(self):
        self.start()
        self.provider.ip("addr add 10.21.1.253/24 dev uplink2")
        self.provider.ip("addr del 10.21.1.254/24 dev uplink2")
        self.client_ns.ip("neigh flush dev uplink2")
        self.wait_two("down")
        self.client_ns.ip("route replace default via 10.21.1.253 dev uplink2 metric 2000")
        self.wait_two("up")
        self.assert_nothing_lost()

    def test_the_link_of_a_path_goes_down_and_comes_back(self):
        self.start()
        self.client_ns.ip("link set uplink2 down")
        self.wait_two("down")
        self.client_ns.ip("link set uplink2 up")
        self.client_ns.ip("route add default via 10.21.1.254 dev uplink2 metric 2000")
        self.wait_two("up")
        self.assert_nothing_lost()

    def test_the_device_of_a_path_vanishes_and_another_comes(self):
        self.start()
        before = self.state(self.client_ns)
        self.client_ns.ip("link del uplink2")
        self.wait_two("down")
        self.add_uplink2()
        self.wait_two("up")
        # Its filter, too, is as the path needs it.
        eventually(lambda: self.state(self.client_ns)["sysctls"] == before["sysctls"], SECONDS,
                   "the new device filters loosely")
        self.assert_nothing_lost()

    def test_a_new_interface_brings_a_lan(self):
        self.start()
        self.lab.link(self.client_ns, "10.52.1.1/24 fd52:1::1/64",
                      self.host, "10.52.1.2/24 fd52:1::2/64", name="lan2")
        for address, own in (("10.52.1.2", "10.52.1.1"), ("fd52:1::2", "fd52:1::1")):
            eventually(lambda: seen_as(self.client_ns, address, 0.3) == own, SECONDS,
                       f"{address} is near")
        self.client_ns.ip("link del lan2")
        eventually(lambda: "10.52.1.0/24" not in self.client_ns.ip("route show table all").stdout,
                   SECONDS, "it is no LAN any more")
        self.assert_nothing_lost()

    def test_what_is_excluded_follows_the_route_to_it(self):
        self.start(routes={"default": True, "exclude": ["lan", "10.40.9.0/24"]})
        self.far.ip("addr add 10.40.9.2/24 dev provider")
        self.provider.ip("addr add 10.40.9.254/24 dev far")
        self.assertEqual(seen_as(self.client_ns, "10.40.9.2"), "10.20.1.1")
        self.client_ns.ip("route add 10.40.9.0/24 via 10.21.1.254")
        eventually(lambda: seen_as(self.client_ns, "10.40.9.2", 0.3) == "10.21.1.1", SECONDS,
                   "it goes by the other link")
        self.client_ns.ip("route del 10.40.9.0/24 via 10.21.1.254")
        eventually(lambda: seen_as(self.client_ns, "10.40.9.2", 0.3) == "10.20.1.1", SECONDS,
                   "and back")
        self.assert_nothing_lost()

    def test_routes_that_come_by_dhcp_cost_nothing(self):
        self.start()
        for route in ("0.0.0.0/1", "128.0.0.0/1", "10.40.0.0/16", "10.40.1.2/32"):
            self.client_ns.ip(f"route add {route} via 10.21.1.254")
        self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])
        self.assert_nothing_lost()
