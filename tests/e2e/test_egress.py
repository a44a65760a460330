"""What leaves past the tunnel, by rule: the machines are drawn in machines.py. A client's programs,
and hosts behind it, reach the far one directly, through the tunnel, or not at all, and see what they
would see without braid.
"""
import contextlib
import errno
import hashlib
import os
import socket
import threading
import time

from lab import eventually
from machines import DIRECT, FAR, PORT, SERVER, Machines, seen_as
from test_reload import reload, write

FAR_NETWORKS = ["10.40.0.0/16", "fd40::/64"]
ONE_PORT = PORT + 1
ECHO_PORT = PORT + 2
NOBODYS_PORT = PORT + 3


def direct(**match):
    return {"match": {"prefix": FAR_NETWORKS, "protocol": "tcp", **match}, "to": "direct"}


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connecting(ns, address, port, seconds=3):
    """What becomes of it: 0, the number of an error, or nothing within that time."""
    with ns.socket(family_of(address), socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        try:
            client.connect((address, port))
            return 0
        except TimeoutError:
            return None
        except OSError as error:
            return error.errno


class Echo:
    """Sends back what it has got once the other end has ended its half, and then a word of its own."""

    def __init__(self, ns, port=ECHO_PORT):
        self.listener = ns.socket(socket.AF_INET6, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("::", port))
        self.listener.listen(1024)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    @staticmethod
    def _echo(connection):
        with contextlib.suppress(OSError), connection:
            got = []
            while data := connection.recv(1 << 20):
                got.append(data)
            for data in got:
                connection.sendall(data)
            connection.sendall(b"bye")

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Conversation:
    """A flow that is there, and how it is."""

    def __init__(self, case, ns):
        self.case = case
        listener = case.far.socket(socket.AF_INET, socket.SOCK_STREAM)
        with listener:
            listener.bind((FAR[4], 0))
            listener.listen()
            self.near = ns.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.near.settimeout(10)
            self.near.connect((FAR[4], listener.getsockname()[1]))
            self.far, _ = listener.accept()
        for end in (self.near, self.far):
            end.settimeout(10)
            case.addCleanup(end.close)

    def goes_on(self):
        for sender, receiver in ((self.near, self.far), (self.far, self.near)):
            data = os.urandom(10_000)
            sender.sendall(data)
            got = b""
            while len(got) < len(data):
                part = receiver.recv(1 << 16)
                self.case.assertTrue(part, "it has ended")
                got += part
            self.case.assertEqual(got, data)

    def ends(self):
        for end in (self.near, self.far):
            self.case.assertEqual(end.recv(1), b"")


def echoed(ns, address, data, port=ECHO_PORT):
    with ns.socket(family_of(address), socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect((address, port))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        got = bytearray()
        while part := client.recv(1 << 20):
            got += part
        return bytes(got)


class Egress(Machines):
    def start_with(self, rules, **client):
        self.set_up(client={"proxy": {"rules": rules}, **client})
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], DIRECT[4])

    def rules_of(self, rules):
        write(self.client, {"proxy": {"rules": rules}})
        reload(self.client)

    def echo(self):
        echo = Echo(self.far)
        self.addCleanup(echo.close)

    def drops(self, name):
        return self.client.status()["drops"].get(name, 0)

    # --- Directly ---

    def test_what_a_rule_sends_out_directly_and_what_it_does_not(self):
        self.start_with([direct(port=PORT)])
        self.echo()
        for family in (4, 6):
            self.assertEqual(seen_as(self.client_ns, FAR[family]), DIRECT[family])
            data = os.urandom(100_000)
            self.assertEqual(echoed(self.client_ns, FAR[family], data), data + b"bye")
        self.assertEqual(self.drops("egress_no_flow"), 0)
        # The rules change while flows are there; those stay where they are.
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            self.rules_of([direct()])
            client.connect((FAR[4], ECHO_PORT))
            client.sendall(b"one ")
            self.rules_of([])
            self.assertEqual(seen_as(self.client_ns, FAR[4]), SERVER[4])
            client.sendall(b"flow ")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(client.makefile("rb").read(), b"one flow bye")

    def test_large_transfers_both_ways_at_once_come_whole(self):
        self.start_with([direct()])
        self.echo()
        wrong = []

        def transfer(address, megabytes):
            data = hashlib.sha256(str(megabytes).encode()).digest() * (megabytes << 15)
            if echoed(self.client_ns, address, data) != data + b"bye":
                wrong.append((address, megabytes))

        threads = [threading.Thread(target=transfer, args=(FAR[family], megabytes))
                   for family in (4, 6) for megabytes in (1, 7, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def sent_by_device_bytes(self):
        return int(self.client_ns.run(
            "cat", "/sys/class/net/braid0/statistics/tx_bytes").stdout)

    def test_the_kernel_turns_lasting_flows_round_by_itself(self):
        self.start_with([direct()])
        self.echo()
        self.assertTrue(self.client.status()["egress"]["shortcuts"])
        for family in (4, 6):
            data = os.urandom(20_000_000)
            before = self.sent_by_device_bytes()
            self.assertEqual(echoed(self.client_ns, FAR[family], data), data + b"bye")
            # Beginning and end came to the worker, and the most of it did not.
            self.assertLess(self.sent_by_device_bytes() - before, 5_000_000)

    def test_without_bpf_the_workers_do_it(self):
        self.set_up(client={"proxy": {"rules": [direct()]}})
        self.client.wrap += ["setpriv", "--bounding-set", "-bpf,-sys_admin",
                             "--inh-caps", "-bpf,-sys_admin"]
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], DIRECT[4])
        self.echo()
        self.assertFalse(self.client.status()["egress"]["shortcuts"])
        data = os.urandom(20_000_000)
        self.assertEqual(echoed(self.client_ns, FAR[4], data), data + b"bye")

    def test_hosts_behind_the_gateway(self):
        self.start_with([direct()], network={
            "routes": {"default": True}, "nat": [{"source": "10.50.1.0/24", "out": "braid0"}]})
        self.echo()
        self.eventually_seen_as(self.host, FAR[4], DIRECT[4])
        data = os.urandom(3_000_000)
        self.assertEqual(echoed(self.host, FAR[4], data), data + b"bye")
        self.assertEqual(connecting(self.host, FAR[4], NOBODYS_PORT), errno.ECONNREFUSED)

    def test_many_short_flows(self):
        self.start_with([direct()])
        count, wrong = 400, []

        def connect_often():
            for _ in range(count):
                if seen_as(self.client_ns, FAR[4]) != DIRECT[4]:
                    wrong.append(1)

        threads = [threading.Thread(target=connect_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        eventually(lambda: self.client.status()["egress"]["tcp"]["flows"] == 0, 5, "none is left")
        self.assertGreaterEqual(self.client.status()["egress"]["tcp"]["opened"], 4 * count)

    # --- The truth about what does not get there ---

    def test_a_refusal_is_one_and_so_is_silence(self):
        self.start_with([direct()])
        for family in (4, 6):
            self.assertEqual(connecting(self.client_ns, FAR[family], NOBODYS_PORT),
                             errno.ECONNREFUSED)
        self.silence(NOBODYS_PORT)
        began = time.monotonic()
        self.assertIsNone(connecting(self.client_ns, FAR[4], NOBODYS_PORT, 2))
        self.assertGreater(time.monotonic() - began, 1.9)
        self.provider.ip("route add unreachable 10.40.7.0/24")
        self.assertEqual(connecting(self.client_ns, "10.40.7.7", PORT), errno.EHOSTUNREACH)
        self.provider.ip("route add prohibit 10.40.8.0/24")
        self.assertIn(connecting(self.client_ns, "10.40.8.7", PORT),
                      (errno.EACCES, errno.EHOSTUNREACH))
        tcp = self.client.status()["egress"]["tcp"]
        self.assertEqual(tcp["refused"], 2)
        self.assertGreaterEqual(tcp["unreachable"], 1)

    def test_early_accept_says_yes_at_once_and_resets_later(self):
        rule = {**direct(), "early_accept": True}
        self.start_with([rule])
        self.echo()
        self.assertEqual(echoed(self.client_ns, FAR[4], b"hello "), b"hello bye")
        with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            with self.assertRaises(ConnectionResetError):  # which may come right behind the yes
                client.connect((FAR[4], NOBODYS_PORT))
                client.recv(1)

    def test_a_reset_is_passed_on(self):
        self.start_with([direct()])
        with self.far.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((FAR[4], ONE_PORT))
            listener.listen()
            with self.client_ns.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(5)
                client.connect((FAR[4], ONE_PORT))
                accepted, _ = listener.accept()
                client.sendall(b"x")
                self.assertEqual(accepted.recv(1), b"x")
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                accepted.close()
                with self.assertRaises(ConnectionResetError):
                    client.recv(1)

    # --- Not at all ---

    def test_what_is_blocked_is_told_so_or_not(self):
        self.start_with([
            {"match": {"prefix": FAR_NETWORKS, "port": ONE_PORT}, "to": "block"},
            {"match": {"prefix": FAR_NETWORKS, "port": NOBODYS_PORT}, "to": "block",
             "silent": True},
            direct()])
        for family in (4, 6):
            self.assertEqual(connecting(self.client_ns, FAR[family], ONE_PORT),
                             errno.ECONNREFUSED)
            self.assertIsNone(connecting(self.client_ns, FAR[family], NOBODYS_PORT, 0.5))
            with self.client_ns.socket(family_of(FAR[family]), socket.SOCK_DGRAM) as client:
                client.settimeout(2)
                client.connect((FAR[family], ONE_PORT))
                client.send(b"x")
                with self.assertRaises(OSError) as raised:
                    client.recv(1)
                self.assertIn(raised.exception.errno, (errno.EHOSTUNREACH, errno.EACCES))
        self.assertGreaterEqual(self.drops("egress_blocked"), 6)

    # --- Before and after ---

    def test_a_machine_without_ipv6_goes_without_it(self):
        self.set_up(client={"proxy": {"rules": [direct()]},
                            "network": {"addresses": ["10.77.0.2/24"]}})
        self.client_ns.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], DIRECT[4])

    def test_when_it_stops_both_ends_are_told(self):
        self.start_with([direct()])
        talks = [Conversation(self, self.client_ns) for _ in range(2)]
        for _ in range(20):  # the kernel turns this one round by then
            talks[0].goes_on()
        talks[1].goes_on()
        self.client.stop()
        for talk in talks:
            talk.ends()

    def test_it_leaves_nothing_behind(self):
        self.set_up(client={"proxy": {"rules": [direct()]}})
        before = self.state(self.client_ns)
        self.tunnel.start()
        self.eventually_seen_as(self.client_ns, FAR[4], DIRECT[4])
        began = time.monotonic()
        self.assertEqual(self.client.stop(), [])
        self.assertLess(time.monotonic() - began, 2)
        self.assert_as_before(before, self.client_ns)
