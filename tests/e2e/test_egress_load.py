"""More than there is room for: floods of new connections, ports that are used up, servers that send
without end. New flows are refused, or get nothing; those that are there are not hurt; and when it is
over all is as before; how soon is measured by bench/egress. Machines as in machines.py.
"""
import contextlib
import errno
import itertools
import json
import os
import select
import socket
import time

import natives
import socks5
from lab import eventually
from machines import DIRECT, FAR, PORT, Machines, seen_as
from test_egress import (ECHO_PORT, FAR_NETWORKS, NOBODYS_PORT, ONE_PORT, Conversation, Echo,
                         direct, echoed)
from test_socks5 import GROUP, PROVIDER, THROUGH, through

SYNS = 100_000
SYNS_FROM = "10.50.1.100"  # and on: hosts behind the gateway that there are not
SILENT_PORT = PORT + 10
FLOODED_BYTES = 64 << 20


class EgressLoad(Machines):
    beside_others = False  # they want the machine for themselves
    floods = itertools.count()

    def start_with(self, rules, servers=None, seen=DIRECT, upstreams=1, nat=(), **proxy):
        """`servers`: groups by name, of so many servers each, and the options of those."""
        groups, ports = {}, itertools.count(1080)
        ports_of = {name: [next(ports) for _ in range(upstreams)] for name in servers or ()}
        for name, its in ports_of.items():
            groups[name] = {"upstreams": [{"address": f"{PROVIDER[4]}:{port}"} for port in its]}
        self.set_up(client={"proxy": {"rules": rules, "groups": groups, **proxy},
                            "network": {"nat": list(nat)}})
        for name, its in ports_of.items():
            for port in its:
                socks5.Server(self.provider, port, *servers[name])
        echo = Echo(self.far)
        self.addCleanup(echo.close)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], seen[4])

    def drops(self, name):
        return self.client.status()["drops"].get(name, 0)

    def refused(self):
        """SYNs that were told of no room, or to nobody."""
        return sum(self.drops(name) for name in ("egress_full", "inbox_full", "egress_evicted"))

    def flood(self, port, during):
        """100,000 SYNs in a second or so, from hosts behind the gateway."""
        process = self.client_ns.start(
            f"flood{next(self.floods)}", natives.path("syn_flood"), "--from", SYNS_FROM, "--to",
            FAR[4], "--port", port, "--count", SYNS, "--rate", SYNS)
        while process.poll() is None:
            during()
        self.assertEqual(process.poll(), 0, process.err())
        self.assertEqual(json.loads(process.out())["sent"], SYNS)

    def test_ten_thousand_handshakes_at_once(self):
        handshakes = 10_000
        self.start_with([through()], {GROUP: ()}, THROUGH, upstreams=2,
                        tcp_sessions=2 * handshakes)
        self.silence(SILENT_PORT)
        with contextlib.ExitStack() as open_:
            asking = select.epoll()
            open_.callback(asking.close)
            programs = {}
            for _ in range(handshakes):
                one = open_.enter_context(self.client_ns.socket(socket.AF_INET,
                                                                socket.SOCK_STREAM))
                one.setblocking(False)
                self.assertEqual(one.connect_ex((FAR[4], SILENT_PORT)), errno.EINPROGRESS)
                programs[one.fileno()] = one
                asking.register(one, select.EPOLLOUT)
            eventually(lambda: self.client.status()["egress"]["tcp"]["connecting"] == handshakes, 10,
                       "all wait for an answer")
            self.assertEqual(seen_as(self.client_ns, FAR[4]), THROUGH[4])
            # Now somebody answers: there is no such port.
            self.far.run("nft", "flush", "ruleset")
            refused, until = 0, time.monotonic() + 30
            while programs and time.monotonic() < until:
                for number, _ in asking.poll(1):
                    one = programs.pop(number)
                    asking.unregister(one)
                    error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    self.assertEqual(error, errno.ECONNREFUSED)
                    refused += 1
        self.assertEqual(refused, handshakes)

    # --- Floods ---

    def assert_floods_pass(self, seen):
        self.silence(SILENT_PORT)
        talk = Conversation(self, self.client_ns)
        for port in (SILENT_PORT, NOBODYS_PORT):
            self.flood(port, talk.goes_on)
            self.eventually_seen_as(self.client_ns, FAR[4], seen)
            talk.goes_on()
        eventually(lambda: self.refused() > SYNS / 10, 5, "most found no room, and that is counted")
        self.assertEqual(echoed(self.client_ns, FAR[4], b"hello "), b"hello bye")

    def test_a_flood_of_new_connections_straight_out(self):
        self.start_with([direct()])
        self.assert_floods_pass(DIRECT[4])

    def test_a_flood_of_new_connections_through_servers(self):
        self.start_with([through()], {GROUP: ()}, THROUGH, upstreams=2)
        self.assert_floods_pass(THROUGH[4])

    def test_a_flood_through_a_server_that_does_not_answer(self):
        stalled = {"match": {"prefix": FAR_NETWORKS, "port": SILENT_PORT}, "to": "stalled"}
        self.start_with([stalled, through()],
                        {GROUP: (), "stalled": ("--behave", "stall-reply")}, THROUGH)
        talk = Conversation(self, self.client_ns)
        for _ in range(2):
            self.flood(SILENT_PORT, talk.goes_on)
            self.eventually_seen_as(self.client_ns, FAR[4], THROUGH[4])
            talk.goes_on()

    # --- No more ports ---

    def test_when_all_ports_are_in_use_new_flows_are_told_so(self):
        ports = 60
        self.start_with([direct()], nat=[{"source": "10.50.1.0/24", "out": "braid0"}])
        self.client_ns.sysctl("net.ipv4.ip_local_port_range", f"40000 {40000 + ports - 1}")
        listener = self.far.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.addCleanup(listener.close)
        listener.bind((FAR[4], ONE_PORT))
        listener.listen(256)
        listener.settimeout(5)
        near, far = [], []

        def begin():
            one = self.host.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.addCleanup(one.close)
            one.settimeout(5)
            one.connect((FAR[4], ONE_PORT))
            near.append(one)
            far.append(listener.accept()[0])
            self.addCleanup(far[-1].close)

        def assert_all_go_on():
            for one, other in zip(near, far):
                one.sendall(b"question")
                self.assertEqual(other.recv(100), b"question")
                other.sendall(b"answer")
                self.assertEqual(one.recv(100), b"answer")

        with self.assertRaises(OSError) as refused:
            for _ in range(2 * ports):
                begin()
        self.assertIn(refused.exception.errno, (errno.ENETUNREACH, errno.ECONNREFUSED))
        self.assertGreater(len(near), ports // 2)
        assert_all_go_on()
        self.assertEqual(seen_as(self.host, FAR[4]), DIRECT[4], "elsewhere there are ports")
        # One that the far end has ended has its port back at once.
        far.pop().close()
        self.assertEqual(near[-1].recv(1), b"")
        near.pop().close()
        time.sleep(1)
        begin()
        assert_all_go_on()

    # --- Who sends without end ---

    def test_a_server_that_floods_is_held_up(self):
        self.start_with([through()], {GROUP: ("--behave", "good,flood")}, THROUGH)
        resident = self.client.process.resident_bytes()
        flooded = []
        for _ in range(20):
            one = self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.addCleanup(one.close)
            one.settimeout(5)
            one.connect((FAR[4], ECHO_PORT))
            flooded.append(one)
        time.sleep(2)
        self.assertLess(self.client.process.resident_bytes() - resident, FLOODED_BYTES)
        self.assertIn(b"hello bye", [self.try_echo() for _ in range(4)])
        for one in flooded:
            one.close()
        eventually(lambda: self.client.status()["egress"]["tcp"]["flows"] == 0, 5, "all have ended")

    def try_echo(self):
        """What comes back, or nothing where it went through a connection that floods."""
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(3)
            client.connect((FAR[4], ECHO_PORT))
            client.sendall(b"hello ")
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read(9)
