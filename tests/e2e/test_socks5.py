"""What leaves through SOCKS5 servers, by rule: the machines are drawn in machines.py. The servers are
at the provider, so the far machine sees who comes through them as its neighbour.
"""
import contextlib
import errno
import hashlib
import os
import socket
import threading
import time

import socks5
from lab import eventually
from machines import FAR, PORT, Machines, seen_as
from socks5 import PASSWORD, USER
from test_egress import (ECHO_PORT, FAR_NETWORKS, NOBODYS_PORT, Conversation, Echo, connecting,
                         echoed)
from test_reload import reload, write

PROVIDER = {4: "10.20.1.254", 6: "fd20:1::fe"}       # where the servers are reached
THROUGH = {4: "10.40.1.254", 6: "fd40::fe"}          # how their clients are seen
GROUP = "upstreams"


def through(**match):
    return {"match": {"prefix": FAR_NETWORKS, "protocol": "tcp", **match}, "to": GROUP}


class Socks5(Machines):
    def start_with(self, *ports, group=None, upstream=None, rules=None, wait=True):
        """`ports` of servers at the provider are the group's upstreams."""
        self.group = {"upstreams": [{"address": f"{PROVIDER[4]}:{port}", **(upstream or {})}
                                    for port in ports], **(group or {})}
        self.rules = rules or [through()]
        self.set_up(client=self.proxy())
        self.serve()
        self.tunnel.start()
        if wait:
            self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])

    def proxy(self):
        return {"proxy": {"rules": self.rules, "groups": {GROUP: self.group}}}

    def serve(self):
        """Starts the servers, once there are machines."""

    def socks(self, *options, port=1080):
        return socks5.Server(self.provider, port, *options)

    def echo(self):
        echo = Echo(self.far)
        self.addCleanup(echo.close)

    def upstreams(self):
        return self.client.status()["egress"]["groups"][GROUP]

    def udp_sessions(self):
        return self.client.status()["egress"]["udp"]["sessions"]

    def password_file(self, text=PASSWORD):
        path = os.path.join(self.lab.folder, "password")
        with open(path, "w", encoding="ascii", opener=lambda *a: os.open(*a, mode=0o600)) as file:
            file.write(text + "\n")
        return path

    # --- What works ---

    def test_flows_both_ways_of_both_families_come_whole(self):
        self.serve = self.socks
        self.start_with(1080)
        self.echo()
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), THROUGH[family])
            data = hashlib.sha256(b"data").digest() * 400_000
            self.assertEqual(echoed(self.client_ns, FAR[family], data), data + b"bye")
        [upstream] = self.upstreams()
        self.assertTrue(upstream["up"])
        self.assertEqual((upstream["breaker"], upstream["failed"]), ("closed", 0))
        self.assertGreaterEqual(upstream["begun"], 4)
        eventually(lambda: self.upstreams()[0]["open"] == 0, 5, "all have ended")

    def test_the_truth_about_what_does_not_get_there(self):
        self.serve = self.socks
        self.start_with(1080)
        for family in (4, 6):
            self.assertEqual(connecting(self.client_ns, FAR[family], NOBODYS_PORT),
                             errno.ECONNREFUSED)
        self.provider.ip("route add unreachable 10.40.7.0/24")
        self.assertEqual(connecting(self.client_ns, "10.40.7.7", PORT), errno.EHOSTUNREACH)
        self.silence(NOBODYS_PORT)
        self.assertIsNone(connecting(self.client_ns, FAR[4], NOBODYS_PORT, 2))
        [upstream] = self.upstreams()
        self.assertEqual((upstream["breaker"], upstream["failed"]), ("closed", 0))

    def test_with_a_password_and_what_a_wrong_one_does(self):
        self.serve = lambda: self.socks("--user", USER, "--password", PASSWORD)
        self.start_with(1080, upstream={"username": USER, "password_file": self.password_file()})
        self.password_file("something else")
        reload(self.client)
        self.assertEqual(connecting(self.client_ns, FAR[4], PORT), errno.ECONNREFUSED)
        eventually(lambda: not self.upstreams()[0]["up"], 5, "it is known to be of no use")
        self.assertIn("refused", self.upstreams()[0]["trouble"])
        self.password_file()
        reload(self.client)
        self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])

    def test_others_servers(self):
        def serve():
            socks5.microsocks(self.provider, 1081, login=(USER, PASSWORD))
            socks5.dante(self.lab, self.provider, PROVIDER[4], THROUGH.values(), 1082)
        self.serve = serve
        self.start_with(1082)
        self.echo()
        data = os.urandom(3_000_000)
        self.assertEqual(echoed(self.client_ns, FAR[4], data), data + b"bye")
        self.assertEqual(connecting(self.client_ns, FAR[4], NOBODYS_PORT), errno.ECONNREFUSED)
        self.group["upstreams"] = [{"address": f"{PROVIDER[4]}:1081", "username": USER,
                                    "password_file": self.password_file()}]
        write(self.client, self.proxy())
        reload(self.client)
        # It knows no half-closed connections, so there is nothing to be echoed.
        self.assertEqual(seen_as(self.client_ns, FAR[4]), THROUGH[4])
        self.assertEqual(connecting(self.client_ns, FAR[4], NOBODYS_PORT), errno.ECONNREFUSED)

    def test_pipelined_and_where_the_server_cannot(self):
        self.serve = self.socks
        self.start_with(1080, group={"pipelined": True})
        self.echo()
        self.assertEqual(echoed(self.client_ns, FAR[4], b"hello "), b"hello bye")
        self.socks("--behave", "no-pipelining", port=1081)
        self.group["upstreams"] = [{"address": f"{PROVIDER[4]}:1081"}]
        write(self.client, self.proxy())
        reload(self.client)
        for _ in range(3):
            self.assertEqual(echoed(self.client_ns, FAR[4], b"hello "), b"hello bye")
        self.assertEqual(self.upstreams()[0]["failed"], 0)

    def test_warm_connections_are_used_and_replaced(self):
        self.serve = lambda: setattr(self, "first", self.socks())
        self.start_with(1080, group={"pool": {"initial": 5, "max": 20}})
        eventually(lambda: self.upstreams()[0]["pool"]["idle"] >= 5, 5, "they are warm")
        for _ in range(30):
            self.assertEqual(seen_as(self.client_ns, FAR[4]), THROUGH[4])
        eventually(lambda: self.upstreams()[0]["pool"]["taken"] > 10, 10, "they are taken")
        # They go with their server, and what is new is as good.
        self.first.kill()
        self.socks()
        self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])
        eventually(lambda: self.upstreams()[0]["pool"]["idle"] >= 5, 10, "they are warm again")
        self.assertEqual(seen_as(self.client_ns, FAR[4]), THROUGH[4])

    def test_who_speaks_first_is_heard_also_with_the_reply(self):
        self.serve = lambda: self.socks("--behave", "coalesce-banner:Hello.")
        self.start_with(1080, wait=False)
        self.echo()
        eventually(lambda: self.upstreams()[0]["up"], 5, "it is up")
        for _ in range(5):
            self.assertEqual(echoed(self.client_ns, FAR[4], b"and you "), b"Hello.and you bye")

    # --- What does not ---

    # The server's misbehaviour, and whether one learns by it that it is of no use.
    NO_USE = ["wrong-version", "method-ff", "method-unoffered", "close-at:1", "close-at:3",
              "reset-at:1", "atyp-bad", "stall-greeting", "refuse:1"]

    def test_a_server_that_misbehaves_costs_no_flow_where_there_is_another(self):
        self.start_with(1080, 1081, wait=False)
        self.echo()
        self.socks(port=1081)
        for behaviour in self.NO_USE:
            with self.subTest(behaviour):
                bad = self.socks("--behave", behaviour)
                for number in range(6):
                    self.assertEqual(echoed(self.client_ns, FAR[4], b"%d " % number),
                                     b"%d bye" % number)
                bad.kill()
        self.assertEqual(self.upstreams()[1]["failed"], 0)

    def test_odd_replies_are_taken(self):
        self.start_with(1080, group={"health": {"every_s": 1}}, wait=False)
        self.echo()
        for behaviour in ("bytewise", "atyp-domain", "atyp-v6", "bnd-zero", "bnd-other"):
            with self.subTest(behaviour):
                odd = self.socks("--behave", behaviour)
                eventually(lambda: self.upstreams()[0]["up"], 10, "it is up")
                self.assertEqual(echoed(self.client_ns, FAR[4], b"a "), b"a bye")
                odd.kill()

    def test_replies_are_passed_on_as_what_they_say(self):
        self.start_with(1080, wait=False)
        for behaviour, error in (("refuse:2", (errno.EACCES, errno.EHOSTUNREACH)),
                                 ("refuse:3", (errno.ENETUNREACH, errno.EHOSTUNREACH)),
                                 ("refuse:4", (errno.EHOSTUNREACH,)),
                                 ("refuse:5", (errno.ECONNREFUSED,)),
                                 ("unknown-reply", (errno.ECONNREFUSED,))):
            with self.subTest(behaviour):
                server = self.socks("--behave", behaviour)
                self.assertIn(connecting(self.client_ns, FAR[4], PORT), error)
                server.kill()

    def test_an_upstream_dies_under_load(self):
        self.serve = lambda: setattr(self, "servers", [self.socks(port=1080),
                                                       self.socks(port=1081)])
        self.start_with(1080, 1081)
        self.echo()
        stays = []
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                client = stack.enter_context(
                    self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM))
                client.settimeout(10)
                client.connect((FAR[4], ECHO_PORT))
                client.sendall(b"x")
                stays.append(client)
            stop, failures, times = threading.Event(), [], []

            def begin_often():
                while not stop.is_set():
                    began = time.monotonic()
                    if seen_as(self.client_ns, FAR[4], 5) != THROUGH[4]:
                        failures.append(began)
                    times.append(time.monotonic() - began)
            threads = [threading.Thread(target=begin_often) for _ in range(4)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            died = time.monotonic()
            self.servers[0].kill()
            time.sleep(3)
            stop.set()
            for thread in threads:
                thread.join()
            # Those that it had in its hands end; what begins a second later gets there.
            self.assertEqual([at - died for at in failures if at > died + 1], [])
            alive = 0
            for client in stays:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                    alive += client.makefile("rb").read() == b"xbye"
            self.assertEqual(alive, 5)
        down = self.upstreams()[0]
        self.assertIn(down["breaker"], ("open", "half_open"))
        # It comes back, and is used again.
        self.socks(port=1080)

        def is_used_again():
            seen_as(self.client_ns, FAR[4])
            return self.upstreams()[0]["breaker"] == "closed"
        eventually(is_used_again, 40, "it is used again", interval=0.2)

    def test_what_nobody_relays_is_refused(self):
        self.start_with(1080, wait=False)
        self.assertEqual(connecting(self.client_ns, FAR[4], PORT), errno.ECONNREFUSED)
        eventually(lambda: "trouble" in self.upstreams()[0], 5, "it is told")

    # --- Groups change ---

    def test_a_reload_changes_groups_and_hurts_no_flow(self):
        self.serve = lambda: [self.socks(port=port) for port in (1080, 1081)]
        self.start_with(1080)
        self.echo()
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((FAR[4], ECHO_PORT))
            client.sendall(b"one ")
            self.group["upstreams"] = [{"address": f"{PROVIDER[4]}:1081", "weight": 3}]
            write(self.client, self.proxy())
            reload(self.client)
            self.assertEqual(seen_as(self.client_ns, FAR[4]), THROUGH[4])
            self.assertEqual(self.upstreams()[0]["address"], f"{PROVIDER[4]}:1081")
            client.sendall(b"flow ")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.makefile("rb").read(), b"one flow bye")

    # --- The network changes ---

    def test_another_address_outward_makes_all_anew(self):
        self.serve = self.socks
        self.start_with(1080, group={"pool": {"initial": 3, "max": 10}},
                        rules=[{"match": {"prefix": FAR_NETWORKS}, "to": GROUP}])
        self.echo()
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client, \
                self.client_ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            client.settimeout(10)
            client.connect((FAR[4], ECHO_PORT))
            client.sendall(b"x")
            datagrams.sendto(b"x", (FAR[4], ECHO_PORT))
            eventually(lambda: self.udp_sessions() == 1, 10, "there is a session")
            # What is of no use is ended at once, and the daemon goes on.
            self.client_ns.ip("addr add 10.20.1.9/24 dev provider")
            self.client_ns.ip("addr del 10.20.1.1/24 dev provider")
            self.client_ns.ip("route replace default via 10.20.1.254")
            with self.assertRaises(ConnectionResetError):
                client.recv(1)
            eventually(lambda: self.udp_sessions() == 0, 10, "it has ended")
        self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])
        eventually(lambda: self.upstreams()[0]["pool"]["idle"] >= 3, 10, "they are warm again")
        # What comes and goes as it was hurts nobody.
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect((FAR[4], ECHO_PORT))
            client.sendall(b"one ")
            self.client_ns.ip("addr add 10.20.1.77/24 dev provider")
            self.client_ns.ip("addr del 10.20.1.77/24 dev provider")
            client.sendall(b"flow ")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.makefile("rb").read(), b"one flow bye")

    def test_when_it_stops_both_ends_are_told(self):
        self.serve = self.socks
        self.start_with(1080)
        talk = Conversation(self, self.client_ns)
        talk.goes_on()
        self.client.stop()
        talk.ends()

    def test_it_leaves_nothing_behind(self):
        self.set_up(client={"proxy": {"rules": [through()], "groups": {
            GROUP: {"upstreams": [{"address": f"{PROVIDER[4]}:1080"}], "pool": {}}}}})
        self.socks()
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])
        began = time.monotonic()
        self.assertEqual(self.client.stop(), [])
        self.assertLess(time.monotonic() - began, 2)
        self.assert_as_before(before, self.client_ns)
