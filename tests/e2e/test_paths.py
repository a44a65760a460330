"""Several paths: where each leaves the machine, and paths that come, go and change.

           ┌─ wa 10.20.1.1 ── 10.20.1.2 wa ─┐
    client ┤  wb 10.20.2.1 ── 10.20.2.2 wb  ├ router ── 10.30.1.2 server
           └─ wc …                         ─┘           fd30:1::2
"""
import json
import time

import natives
from capture import Tap, addresses
from daemon import endpoint
from lab import eventually, run
from lab_test import LabTest, each
from topology import INNER, Tunnel
from traffic import Pinger, iperf, ping, tcp_mbps

SERVER = {4: "10.30.1.2", 6: "fd30:1::2"}
LINKS = [f"w{letter}" for letter in "abcdefghij"]


class Uplinks:
    """A client behind several links of one router, each called the same at both ends. `metrics` are
    those of the default routes, None where there is none."""

    def __init__(self, lab, metrics=(10, 20), families=(4, 6)):
        self.lab = lab
        self.client, self.router, self.server = (
            lab.namespace(name) for name in ("client", "router", "server"))
        self.router.forward()
        lab.link(self.router, "10.30.1.1/24 fd30:1::1/64", self.server, "10.30.1.2/24 fd30:1::2/64")
        self.server.ip("route add default via 10.30.1.1")
        self.server.ip("route add default via fd30:1::1")
        self.links = []
        for metric in metrics:
            self.add_link(metric, families)

    def add_link(self, metric=None, families=(4, 6), mtu=1500):
        """The name of a new link."""
        link = LINKS[len(self.links)]
        self.links.append(link)
        number = len(self.links)
        self.client.ip(f"link add {link} mtu {mtu} type veth peer name {link} mtu {mtu} "
                       f"netns {self.router.name}")
        for ns, host in ((self.router, 2), (self.client, 1)):
            if 4 in families:
                ns.ip(f"addr add 10.20.{number}.{host}/24 dev {link}")
            if 6 in families:
                ns.ip(f"addr add fd20:{number}::{host}/64 dev {link} nodad")
            ns.ip(f"link set {link} up")
        for ns in (self.router, self.client):
            ns.ip(f"link show dev {link}")
        if metric is not None:
            self.add_default(link, metric, families)
        return link

    def number(self, link):
        return LINKS.index(link) + 1

    def address(self, link, family=4):
        number = self.number(link)
        return f"10.20.{number}.1" if family == 4 else f"fd20:{number}::1"

    def add_default(self, link, metric, families=(4, 6), table="main"):
        number = self.number(link)
        for family in families:
            via = f"10.20.{number}.2" if family == 4 else f"fd20:{number}::2"
            self.client.ip(f"route add default via {via} dev {link} metric {metric} "
                           f"table {table}")

    def tunnel(self, paths, family=4, **options):
        """`paths` as in the configuration, or the links of paths by interface."""
        if not isinstance(paths, str) or paths != "auto":
            paths = [{"name": path, "interface": path} if isinstance(path, str) else path
                     for path in paths]
        server_address = SERVER[family] if family else None
        tunnel = Tunnel(self.lab, machines=(self.client, self.server),
                        server_address=server_address or SERVER[4], **options)
        tunnel.client.config["tunnel"]["paths"] = paths
        if family is None:
            tunnel.client.config["tunnel"]["peers"][0]["endpoints"] = [
                endpoint(SERVER[4]), endpoint(SERVER[6])]
        return tunnel


def paths_of(daemon):
    """By name; none while it is not established."""
    status = daemon.try_status()
    return {path["name"]: path for path in status["peers"][0]["paths"]} if status else {}


def wait_paths(daemon, *names, seconds=8):
    """Until it has these paths, and all of them are usable."""
    def there():
        paths = paths_of(daemon)
        return set(paths) == set(names) and all(path["state"] != "down"
                                                for path in paths.values())
    try:
        eventually(there, seconds, f"{daemon.name} has paths {names}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {json.dumps(paths_of(daemon))}") from None


def wait_state(daemon, name, *states, seconds=8):
    eventually(lambda: paths_of(daemon).get(name, {}).get("state") in states, seconds,
               f"path {name} of {daemon.name} is {states}: {paths_of(daemon)}")


def braid_path(daemon, *arguments, check=True):
    return run(natives.braid(), "path", *arguments, "--socket", daemon.socket_path, check=check)


class Taps:
    """Which source addresses reach the server over which of the links."""

    def __init__(self, uplinks):
        self.taps = {link: Tap(uplinks.router, link) for link in uplinks.links}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for tap in self.taps.values():
            tap.__exit__()

    def sources(self, seconds=0.7):
        """Pairs of link and source address of what passes from now on."""
        for tap in self.taps.values():
            tap.forget()
        time.sleep(seconds)
        return {(link, addresses(packet)[0]) for link, tap in self.taps.items()
                for packet in tap.packets() if addresses(packet)[1] in SERVER.values()}


QUICK = {"keepalive_s": 0.1}


class Quotas(LabTest):
    beside_others = True

    def used_up(self, tunnel, name):
        path = paths_of(tunnel.client).get(name, {})
        return path.get("state") == "down" and "quota used up until 20" in (path["problem"] or "")

    def test_a_path_whose_quota_is_used_up_is_not_used_by_either_end(self):
        uplinks = Uplinks(self.lab)
        # The first stands by, so that it is the second that carries.
        tunnel = uplinks.tunnel([{"name": "wa", "interface": "wa", "standby": True},
                                 {"name": "wb", "interface": "wb",
                                  "quota": {"gb": 0.002, "reset_day": 31}}])
        tunnel.start()
        wait_paths(tunnel.client, "wa", "wb")
        quota = paths_of(tunnel.client)["wb"]["quota"]
        self.assertEqual(quota["limit_bytes"], 2_000_000)
        iperf(tunnel.server_ns, tunnel.client_ns, "10.77.0.1", "-b", "20M", "--bidir", seconds=3)
        eventually(lambda: self.used_up(tunnel, "wb"), 5, "the quota is used up")
        self.assertRegex(tunnel.client.log(), r"path \"wb\": \d+ % of its quota")
        eventually(lambda: len(paths_of(tunnel.server)) == 1, 5, "the server knows")
        used = paths_of(tunnel.client)["wb"]["quota"]["used_bytes"]
        sent = uplinks.client.counter("wb", "tx_bytes") + uplinks.client.counter("wb", "rx_bytes")
        # The kernel counts Ethernet headers too.
        self.assertLess(abs(used / sent - 1), 0.05, (used, sent))
        self.assertIn("GB of 0.002 GB used", tunnel.client.shown_status())
        iperf(tunnel.server_ns, tunnel.client_ns, "10.77.0.1", "--bidir", seconds=1)
        after = uplinks.client.counter("wb", "tx_bytes") + uplinks.client.counter("wb", "rx_bytes")
        self.assertLess(after - sent, 20_000, "nothing goes over it any more")
        # It is so after a start, too; and a process that is killed has lost little of it.
        tunnel.client.kill()
        tunnel.client.start()
        tunnel.wait()
        eventually(lambda: self.used_up(tunnel, "wb"), 5, "the quota is still used up")
        self.assertGreater(paths_of(tunnel.client)["wb"]["quota"]["used_bytes"], used * 0.95)

    def test_the_last_path_is_not_used_beyond_its_quota_either(self):
        uplinks = Uplinks(self.lab, metrics=(10,))
        tunnel = uplinks.tunnel([{"name": "wa", "interface": "wa", "quota": {"gb": 0.002}}])
        tunnel.start()
        ping(tunnel.client_ns, "10.77.0.1", count=2000, interval=0.002, size=1000)
        eventually(lambda: self.used_up(tunnel, "wa"), 10, "the quota is used up")
        self.assertFalse(tunnel.server.is_established(), "it is told to stop")
        # A start with nothing left waits for the reset.
        tunnel.client.stop()
        tunnel.client.start()
        eventually(lambda: self.used_up(tunnel, "wa"), 5, "the quota is still used up")
        # Another path is one way out, without a quota.
        link = uplinks.add_link(20)
        braid_path(tunnel.client, "add", link, "--interface", link)
        tunnel.wait()


class Binding(LabTest):
    beside_others = True

    @each(family=(4, 6))
    def test_each_path_leaves_by_its_own_link_whatever_the_metrics(self, family):
        uplinks = Uplinks(self.lab)
        paths = [{"name": "first", "address": uplinks.address("wa", family)},
                 {"name": "second", "address": uplinks.address("wb", family)}]
        tunnel = uplinks.tunnel(paths, family, peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "first", "second")
        with Taps(uplinks) as taps:
            self.assertEqual(taps.sources(), {("wa", uplinks.address("wa", family)),
                                              ("wb", uplinks.address("wb", family))})
        by_name = paths_of(tunnel.client)
        for name, link in (("first", "wa"), ("second", "wb")):
            self.assertEqual(by_name[name]["interface"], link)
            self.assertEqual(by_name[name]["local"], uplinks.address(link, family))
            self.assertIsNone(by_name[name]["problem"])
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_route_of_another_table_by_rule(self):
        uplinks = Uplinks(self.lab, metrics=(10, None))
        uplinks.add_default("wb", 5, (4,), table=100)
        uplinks.client.ip("rule add oif wb lookup 100")
        tunnel = uplinks.tunnel([{"name": "first", "address": uplinks.address("wa")},
                                 {"name": "second", "address": uplinks.address("wb")}],
                                peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "first", "second")
        with Taps(uplinks) as taps:
            self.assertIn(("wb", uplinks.address("wb")), taps.sources())

    @each(by=("interface", "address"))
    def test_a_table_that_no_rule_chooses_is_told(self, by):
        uplinks = Uplinks(self.lab, metrics=(10, None))
        uplinks.add_default("wb", 5, (4,), table=100)
        second = {"interface": "wb"} if by == "interface" else {"address": uplinks.address("wb")}
        tunnel = uplinks.tunnel(["wa", {"name": "second", **second}], peer_of_both=QUICK).start()
        problem = paths_of(tunnel.client)["second"]["problem"]
        self.assertIn('no rule chooses it: "ip rule add oif wb lookup 100"', problem)
        self.assertIn(problem, tunnel.client.log())
        self.assertIn("oif wb lookup 100", " ".join(tunnel.client.shown_status().split()))
        if by == "address":
            self.assertIn("leaves by wa", problem)
        # What it says helps, at once.
        uplinks.client.ip("rule add oif wb lookup 100")
        wait_paths(tunnel.client, "wa", "second")
        self.assertIsNone(paths_of(tunnel.client)["second"]["problem"])
        with Taps(uplinks) as taps:
            self.assertIn(("wb", uplinks.address("wb")), taps.sources())

    def test_a_device_without_any_route_is_told(self):
        uplinks = Uplinks(self.lab, metrics=(10, None))
        tunnel = uplinks.tunnel(["wa", "wb"], peer_of_both=QUICK).start()
        self.assertIn("no table has a default route", paths_of(tunnel.client)["wb"]["problem"])
        uplinks.add_default("wb", 20, (4,))
        wait_paths(tunnel.client, "wa", "wb")

    def test_an_address_of_the_loopback_leaves_as_the_routes_say(self):
        uplinks = Uplinks(self.lab)
        uplinks.client.ip("addr add 10.40.0.1/32 dev lo")
        uplinks.router.ip("route add 10.40.0.1/32 via 10.20.1.1")
        tunnel = uplinks.tunnel([{"name": "service", "address": "10.40.0.1"}],
                                peer_of_both=QUICK).start()
        with Taps(uplinks) as taps:
            self.assertEqual(taps.sources(), {("wa", "10.40.0.1")})
            # And follow them.
            uplinks.client.ip("route del default via 10.20.1.2 dev wa")
            uplinks.router.ip("route replace 10.40.0.1/32 via 10.20.2.1")
            self.assertEqual(taps.sources(), {("wb", "10.40.0.1")})
        self.assertIsNone(paths_of(tunnel.client)["service"]["problem"])


class Commands(LabTest):
    beside_others = True

    def test_a_path_is_added_and_ended_while_pings_run(self):
        uplinks = Uplinks(self.lab)
        tunnel = uplinks.tunnel(["wa"], peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "wa")
        pings = Pinger(tunnel.client_ns, INNER[4][1], interval=0.02)
        eventually(pings.answers, 3, "ping is answered")
        for _ in range(3):
            braid_path(tunnel.client, "add", "other", "--interface", "wb")
            wait_paths(tunnel.client, "wa", "other")
            wait_paths(tunnel.server, "path0", "path1")
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1], count=3).received, 3)
            braid_path(tunnel.client, "del", "wa")
            wait_paths(tunnel.client, "other")
            wait_paths(tunnel.server, "path1", seconds=2)
            braid_path(tunnel.client, "add", "wa", "--address", uplinks.address("wa"))
            wait_paths(tunnel.client, "wa", "other")
            braid_path(tunnel.client, "del", "other")
            wait_paths(tunnel.server, "path0", seconds=2)
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1], count=20).received, 20)
        pings.stop()
        self.assertLess(pings.longest_gap(), 2)
        self.assertIn('path "other" was added by command', tunnel.client.log())

    @each(io=("io_uring", "epoll"))
    def test_load_goes_on_over_paths_that_change(self, io):
        uplinks = Uplinks(self.lab)
        tunnel = uplinks.tunnel(["wa", "wb"], peer_of_both=QUICK, both={
            "performance": {"io": io, "workers": 2, "pin": False}}).start()
        wait_paths(tunnel.client, "wa", "wb")
        for keep, change in (("wa", "wb"), ("wb", "wa")) * 3:
            braid_path(tunnel.client, "del", change)
            self.assertGreater(tcp_mbps(iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1],
                                              "-P", 4)), 20)
            braid_path(tunnel.client, "add", change, "--interface", change)
            wait_paths(tunnel.client, "wa", "wb")
            self.assertEqual(set(paths_of(tunnel.client)), {keep, change})

    def test_list(self):
        uplinks = Uplinks(self.lab)
        tunnel = uplinks.tunnel(["wa", {"name": "out", "interface": "wwan9"}],
                                peer_of_both=QUICK).start()
        shown = braid_path(tunnel.client, "list").stdout
        self.assertRegex(shown, r"(?m)^wa +wa +hub +up +10\.30\.1\.2:7700$")
        self.assertRegex(shown, r"(?m)^out +wwan9 +hub +waits +-$")
        self.assertIn('this machine has no interface "wwan9"', shown)
        listed = json.loads(braid_path(tunnel.client, "list", "--json").stdout)["paths"]
        self.assertEqual([(path["name"], path["open"], path["from"]) for path in listed],
                         [("wa", True, "configuration"), ("out", False, "configuration")])
        # It comes to life when there is such an interface.
        uplinks.client.ip("link set wb down")
        uplinks.client.ip("link set wb name wwan9")
        uplinks.client.ip("link set wwan9 up")
        uplinks.client.ip("route add default via 10.20.2.2 dev wwan9 metric 20")
        wait_paths(tunnel.client, "wa", "out")

    def test_mistakes_say_what_to_do(self):
        uplinks = Uplinks(self.lab)
        tunnel = uplinks.tunnel(["wa"], peer_of_both=QUICK).start()
        for arguments, words in (
                (("add", "wa", "--interface", "wb"), "take another name"),
                (("add", "x"), '"address" or an "interface"'),
                (("add", "x", "--interface", "braid0"), "the tunnel's own device"),
                (("add", "x", "--address", "10.20.300.1"), "address"),
                (("add", "x", "--address", "fd20:2::1"), "endpoint of its own"),
                (("add", "x", "--interface", "wb", "--endpoint", "10.30.1.2"), "endpoint"),
                (("del", "wb"), "braid path list"),
                (("del", "wa"), "last path")):
            with self.subTest(arguments=arguments):
                done = braid_path(tunnel.client, *arguments, check=False)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1)
        done = braid_path(tunnel.server, "add", "x", "--interface", "wb", check=False)
        self.assertIn("server", done.stderr)
        done = braid_path(tunnel.client, "add", "x", "--interface", "wwan7")
        self.assertIn('no interface "wwan7"', done.stderr)
        for number in range(6):
            braid_path(tunnel.client, "add", f"more{number}", "--interface", "wb")
        done = braid_path(tunnel.client, "add", "ninth", "--interface", "wb", check=False)
        self.assertIn("the most there may be", done.stderr)
        for command in ("add", "del"):
            help_text = run(natives.braid(), "path", command, "--help").stdout
            self.assertIn("until the daemon ends", " ".join(help_text.split()))


class Links(LabTest):
    """Links that go, come back and change under a path."""

    beside_others = True

    def start(self, paths=("wa", "wb"), **options):
        self.uplinks = Uplinks(self.lab)
        tunnel = self.uplinks.tunnel(paths, peer_of_both=QUICK, **options).start()
        wait_paths(tunnel.client, "wa", "wb")
        return tunnel

    def set_up_again(self, link, metric):
        self.uplinks.client.ip(f"link set {link} up")
        number = self.uplinks.number(link)
        self.uplinks.client.ip(f"addr replace fd20:{number}::1/64 dev {link} nodad")
        self.uplinks.add_default(link, metric)

    def test_an_interface_goes_down_and_comes_up(self):
        tunnel = self.start()
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        active = next(name for name, path in paths_of(tunnel.client).items()
                      if path["state"] == "up")
        tunnel.client_ns.ip(f"link set {active} down")
        wait_state(tunnel.client, active, "down", seconds=2)
        self.assertIn("is down", paths_of(tunnel.client)[active]["problem"])
        eventually(lambda: len(paths_of(tunnel.server)) == 1, 2, "the server has forgotten it")
        pings.wait_for_answer_after(time.time() + 0.05, 2)
        self.set_up_again(active, 10 if active == "wa" else 20)
        wait_paths(tunnel.client, "wa", "wb")
        wait_paths(tunnel.server, "path0", "path1")
        pings.stop()
        self.assertLess(pings.longest_gap(), 3)

    def test_an_interface_is_taken_away_and_another_of_its_name_comes(self):
        tunnel = self.start()
        tunnel.client_ns.ip("link del wb")
        wait_state(tunnel.client, "wb", "down", seconds=2)
        self.assertIn("has no interface", paths_of(tunnel.client)["wb"]["problem"])
        wait_paths(tunnel.server, "path0", seconds=2)
        before = {path["name"]: path["id"] for path in
                  json.loads(braid_path(tunnel.client, "list", "--json").stdout)["paths"]}
        self.uplinks.links.remove("wb")
        self.uplinks.add_link(20)
        wait_paths(tunnel.client, "wa", "wb")
        wait_paths(tunnel.server, "path0", "path1")
        after = {path["name"]: path["id"] for path in
                 json.loads(braid_path(tunnel.client, "list", "--json").stdout)["paths"]}
        self.assertEqual(before, after)
        tunnel.client_ns.ip("link set wa down")
        eventually(lambda: ping(tunnel.client_ns, INNER[4][1], count=1, wait=1).received == 1, 5,
                   "the new one carries the traffic")

    def test_the_only_path_goes_and_comes_back(self):
        self.uplinks = Uplinks(self.lab)
        tunnel = self.uplinks.tunnel(["wa"], peer_of_both=QUICK).start()
        for _ in range(2):
            tunnel.client_ns.ip("link set wa down")
            wait_state(tunnel.client, "wa", "down")
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1], count=1, wait=1).received, 0)
            self.set_up_again("wa", 10)
            wait_state(tunnel.client, "wa", "up")
            self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_the_address_of_a_path_by_interface_changes(self):
        tunnel = self.start()
        tunnel.client_ns.ip("addr add 10.20.2.77/24 dev wb")
        tunnel.client_ns.ip("addr del 10.20.2.1/24 dev wb")
        self.uplinks.client.ip("route replace default via 10.20.2.2 dev wb metric 20")
        eventually(lambda: any(path["remote"].startswith("10.20.2.77:")
                               for path in paths_of(tunnel.server).values()), 5,
                   "the server knows the new address")
        wait_paths(tunnel.client, "wa", "wb")
        self.assertEqual(paths_of(tunnel.client)["wb"]["local"], "10.20.2.77")

    def test_the_address_of_a_path_by_address_moves_to_another_link(self):
        self.uplinks = Uplinks(self.lab)
        self.uplinks.client.ip("addr add 10.50.0.1/32 dev wa")
        self.uplinks.router.ip("route add 10.50.0.1/32 via 10.20.1.1")
        tunnel = self.uplinks.tunnel([{"name": "moving", "address": "10.50.0.1"}],
                                     peer_of_both=QUICK).start()
        self.assertEqual(paths_of(tunnel.client)["moving"]["interface"], "wa")
        self.uplinks.client.ip("addr del 10.50.0.1/32 dev wa")
        wait_state(tunnel.client, "moving", "down")
        self.uplinks.client.ip("addr add 10.50.0.1/32 dev wb")
        self.uplinks.router.ip("route replace 10.50.0.1/32 via 10.20.2.1")
        wait_state(tunnel.client, "moving", "up")
        self.assertEqual(paths_of(tunnel.client)["moving"]["interface"], "wb")
        with Taps(self.uplinks) as taps:
            self.assertEqual(taps.sources(), {("wb", "10.50.0.1")})


class Auto(LabTest):
    beside_others = True

    def test_every_interface_with_a_default_route_is_a_path(self):
        uplinks = Uplinks(self.lab, metrics=(10, 20, None))
        tunnel = uplinks.tunnel("auto", peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "wa", "wb")
        # The tunnel's own is none, though it has one.
        tunnel.client_ns.ip("route add default dev braid0 metric 1000")
        uplinks.add_default("wc", 30, (4,))
        wait_paths(tunnel.client, "wa", "wb", "wc")
        wait_paths(tunnel.server, "path0", "path1", "path2")
        uplinks.client.ip("route del default dev wc metric 30")
        wait_paths(tunnel.client, "wa", "wb")
        wait_paths(tunnel.server, "path0", "path1")
        for path in json.loads(braid_path(tunnel.client, "list", "--json").stdout)["paths"]:
            self.assertEqual(path["from"], "default route")

    def test_interfaces_go_down_are_removed_and_come_back(self):
        uplinks = Uplinks(self.lab)
        tunnel = uplinks.tunnel("auto", peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "wa", "wb")
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        uplinks.client.ip("link set wa down")
        wait_paths(tunnel.client, "wb")
        wait_paths(tunnel.server, "path1")
        uplinks.client.ip("link set wa up")
        uplinks.add_default("wa", 10, (4,))
        wait_paths(tunnel.client, "wa", "wb")
        uplinks.client.ip("link del wb")
        wait_paths(tunnel.client, "wa")
        wait_paths(tunnel.server, "path0")
        uplinks.add_link(30)
        wait_paths(tunnel.client, "wa", "wc")
        pings.wait_for_answer_after(time.time() + 0.05, 2)
        pings.stop()
        self.assertLess(pings.longest_gap(), 3)

    def test_it_waits_for_the_first_one(self):
        uplinks = Uplinks(self.lab, metrics=(None,))
        tunnel = uplinks.tunnel("auto", peer_of_both=QUICK)
        tunnel.server.start()
        tunnel.client.start()
        self.assertEqual(paths_of(tunnel.client), {})
        uplinks.add_default("wa", 10)
        tunnel.wait()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_commands_count_more(self):
        uplinks = Uplinks(self.lab, metrics=(10, 20))
        tunnel = uplinks.tunnel("auto", peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "wa", "wb")
        braid_path(tunnel.client, "del", "wb")
        wait_paths(tunnel.client, "wa")
        uplinks.client.ip("link set wb down")
        self.set_up(uplinks)
        time.sleep(0.5)
        self.assertEqual(set(paths_of(tunnel.client)), {"wa"})
        braid_path(tunnel.client, "add", "mine", "--interface", "wb")
        wait_paths(tunnel.client, "wa", "mine")

    def set_up(self, uplinks):
        uplinks.client.ip("link set wb up")
        uplinks.add_default("wb", 20, (4,))


class Families(LabTest):
    beside_others = True

    def test_one_path_of_each_family_in_one_session(self):
        uplinks = Uplinks(self.lab, metrics=())
        uplinks.add_link(10, (4,))
        uplinks.add_link(20, (6,))
        tunnel = uplinks.tunnel(["wa", "wb"], None, peer_of_both=QUICK).start()
        wait_paths(tunnel.client, "wa", "wb")
        remotes = {name: path["remote"] for name, path in paths_of(tunnel.client).items()}
        self.assertEqual(remotes, {"wa": endpoint(SERVER[4]), "wb": endpoint(SERVER[6])})
        for link in ("wa", "wb"):
            other = "wb" if link == "wa" else "wa"
            uplinks.client.ip(f"link set {other} down")
            eventually(lambda: ping(tunnel.client_ns, INNER[6][1], count=1, wait=1).received, 5,
                       f"path {link} carries the traffic")
            for way in ((), ("-R",)):
                report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 4, *way)
                self.assertGreater(tcp_mbps(report), 20)
            uplinks.client.ip(f"link set {other} up")
            if other == "wb":
                uplinks.client.ip("addr replace fd20:2::1/64 dev wb nodad")
            uplinks.add_default(other, 30, (4,) if other == "wa" else (6,))
            wait_paths(tunnel.client, "wa", "wb")


class Nat(LabTest):
    beside_others = True

    def rebind(self, uplinks, ports, *links):
        """The router's address translation gives the flows of these links other ports."""
        uplinks.router.masquerade(
            'oifname "server" iifname { %s }' % ", ".join(f'"{link}"' for link in links),
            ports)
        for link in links:
            uplinks.router.run("conntrack", "-D", "-s", uplinks.address(link), check=False)

    def remotes(self, daemon):
        return {name: path["remote"] for name, path in paths_of(daemon).items()}

    @each(count=(2, 3))
    def test_one_path_gets_another_port_while_the_others_stay(self, count):
        uplinks = Uplinks(self.lab, metrics=range(10, 10 + count))
        links = uplinks.links
        self.rebind(uplinks, "20000-29999", *links)
        tunnel = uplinks.tunnel(links, peer_of_both=QUICK).start()
        wait_paths(tunnel.client, *links)
        wait_paths(tunnel.server, *(f"path{id}" for id in range(count)))
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        eventually(pings.answers, 3, "ping is answered")
        for number, link in enumerate(links):
            before = self.remotes(tunnel.server)
            low = 30000 + number * 5000
            self.rebind(uplinks, f"{low}-{low + 4999}", link)
            ports = range(low, low + 5000)
            eventually(lambda: int(self.remotes(tunnel.server)[f"path{number}"].split(":")[1])
                       in ports, 5, "the server has followed")
            after = self.remotes(tunnel.server)
            del before[f"path{number}"], after[f"path{number}"]
            self.assertEqual(before, after)
            pings.wait_for_answer_after(time.time() + 0.05, 3)
        pings.stop()
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], "-P", 8, *way)
            self.assertGreater(tcp_mbps(report), 20)


class Mtu(LabTest):
    """What paths carry is found without any help of the routers: they drop in silence."""

    beside_others = True

    def narrow(self, uplinks, link, mtu):
        """The router passes nothing longer over this link, either way, and does not tell."""
        uplinks.router.nft(f"""
            table inet narrow_{link} {{
                chain forward {{
                    type filter hook forward priority filter;
                    iifname "{link}" meta length > {mtu} drop
                    oifname "{link}" meta length > {mtu} drop
                }}
            }}""")
        # What comes joined would be too long though each of its datagrams is not.
        for ns, device in ((uplinks.client, link), (uplinks.server, "router")):
            ns.ethtool(device, tx_udp_segmentation="off")

    def wait_mtus(self, daemon, mtus, seconds=15):
        def found():
            return {name: path["mtu"] for name, path in paths_of(daemon).items()} == mtus
        eventually(found, seconds, f"{daemon.name} has found {mtus}")

    @each(family=(4, 6))
    def test_a_narrow_link_is_found_and_full_size_goes_over_both(self, family):
        uplinks = Uplinks(self.lab)
        self.narrow(uplinks, "wb", 1400)
        listen = "0.0.0.0" if family == 4 else "::"
        tunnel = uplinks.tunnel(["wa", "wb"], family, peer_of_both=QUICK, server={
            "tunnel": {"listen": [{"address": listen, "port": 7700}]}}).start()
        wide, narrow = (mtu - {4: 68, 6: 88}[family] for mtu in (1500, 1400))
        self.wait_mtus(tunnel.client, {"wa": wide, "wb": narrow})
        self.wait_mtus(tunnel.server, {"path0": wide, "path1": narrow})
        self.assertEqual(tunnel.client.status()["network"]["mtu"], narrow)
        self.assert_full_size(tunnel, narrow)  # over the wide one
        braid_path(tunnel.client, "del", "wa")
        self.assert_full_size(tunnel, narrow)
        braid_path(tunnel.client, "add", "wide", "--interface", "wa")
        wait_paths(tunnel.client, "wb", "wide")
        braid_path(tunnel.client, "del", "wb")
        eventually(lambda: tunnel.client.status()["network"]["mtu"] == wide, 15,
                   "the device follows")
        eventually(lambda: [path["mtu"] for path in paths_of(tunnel.server).values()] == [wide], 5,
                   "the server has the wide one alone")
        self.assert_full_size(tunnel, wide)

    def assert_full_size(self, tunnel, mtu):
        for ns, address in ((tunnel.client_ns, INNER[4][1]), (tunnel.server_ns, INNER[4][0])):
            pings = ping(ns, address, size=mtu - 28)
            self.assertEqual(pings.received, 3, f"{ns.short}: {pings.text}")
        for way in ((), ("-R",)):
            report = iperf(tunnel.server_ns, tunnel.client_ns, INNER[4][1], *way)
            self.assertGreater(tcp_mbps(report), 5)

    def test_a_path_that_carries_too_little_is_refused(self):
        uplinks = Uplinks(self.lab)
        self.narrow(uplinks, "wa", 1300)
        tunnel = uplinks.tunnel(["wa", "wb"], peer_of_both=QUICK).start()
        eventually(lambda: "1280" in (paths_of(tunnel.client)["wa"]["problem"] or ""), 15,
                   "it is told")
        paths = paths_of(tunnel.client)
        self.assertEqual((paths["wa"]["state"], paths["wb"]["state"]), ("down", "up"))
        self.assertIn("error", next(line for line in tunnel.client.log().splitlines()
                                    if "1280" in line))
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1], size=1300).received, 3)
        # Once the router has been mended.
        uplinks.router.nft("delete table inet narrow_wa")
        wait_paths(tunnel.client, "wa", "wb", seconds=20)

    def test_a_link_of_a_small_mtu_is_refused_beside_another(self):
        uplinks = Uplinks(self.lab)
        uplinks.client.ip("link set wb mtu 1340")
        tunnel = uplinks.tunnel(["wa", "wb"], peer_of_both=QUICK).start()
        eventually(lambda: "1280" in (paths_of(tunnel.client)["wb"]["problem"] or ""), 5,
                   "it is told")
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1], size=1300).received, 3)
        uplinks.client.ip("link set wb mtu 1400")
        wait_paths(tunnel.client, "wa", "wb")
        self.wait_mtus(tunnel.client, {"wa": 1412, "wb": 1332})

    def test_a_link_that_becomes_narrow_under_load(self):
        uplinks = Uplinks(self.lab, metrics=(10,))
        tunnel = uplinks.tunnel(["wa"], peer_of_both=QUICK).start()
        self.wait_mtus(tunnel.client, {"wa": 1412})
        self.narrow(uplinks, "wa", 1400)
        pings = tunnel.client_ns.start("pings", "ping", "-n", "-i", "0.2", "-s", "1380",
                                       INNER[4][1])
        self.wait_mtus(tunnel.client, {"wa": 1332})
        pings.kill()
        self.assertEqual(tunnel.client.status()["network"]["mtu"], 1332)
