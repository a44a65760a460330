"""What comes from strangers: counted under its name, never answered, without any effect.

    client 10.20.1.1 ┐
    stranger .9      ┼─ switch ── server 10.20.1.2
"""
import os
import random
import signal
import socket
import time

from capture import Tap, addresses, udp_payloads
from daemon import Daemon, Identity
from lab import eventually
from lab_test import LabTest, each
from topology import INNER, Tunnel, client_config
from traffic import Pinger, ping

STRANGER = "10.20.1.9"
SERVER = "10.20.1.2"
DATA, CONTROL, PARITY = 4, 5, 6
SLOW_LANE = 255


def header(kind=DATA, session=0, lane=0, path=0, epoch=0, flags=0, path_seq=0, sequence=0,
           magic=0xB7A1, version=1):
    return (magic.to_bytes(2, "big") + bytes([version, kind]) + session.to_bytes(4, "big") +
            bytes([lane, path, epoch, flags]) + path_seq.to_bytes(4, "big") +
            sequence.to_bytes(8, "big"))


def udp_drops(ns):
    """What the UDP sockets of this machine have dropped, as the kernel's table of them has it."""
    with ns.entered():
        with open("/proc/thread-self/net/udp", encoding="ascii") as file:
            return sum(int(line.split()[-1]) for line in list(file)[1:])


def patched(datagram, offset, new):
    return datagram[:offset] + new + datagram[offset + len(new):]


class BadDatagrams(LabTest):
    beside_others = True

    def start(self, **options):
        client, server, stranger = (self.lab.namespace(name)
                                    for name in ("client", "server", "stranger"))
        self.lab.switch("switch", [(client, "10.20.1.1/24"), (server, f"{SERVER}/24"),
                                   (stranger, f"{STRANGER}/24")])
        self.stranger = stranger
        self.tunnel = Tunnel(self.lab, machines=(client, server), **options)
        self.socket = stranger.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.back = Tap(stranger, "switch")
        self.addCleanup(self.back.__exit__)
        return self.tunnel

    def send(self, datagrams):
        for number, datagram in enumerate(datagrams):
            self.socket.sendto(datagram, (SERVER, 7700))
            if number % 100 == 99:
                time.sleep(0.002)  # no more than the socket holds: each has to be counted

    def counted(self, datagrams, name=None):
        """Sends them; each must be counted, under `name` where one is given. Returns the counts."""
        datagrams = list(datagrams)
        before = self.tunnel.server.drops()
        self.send(datagrams)

        def grown():
            now = self.tunnel.server.drops()
            return {each: now[each] - before[each] for each in now if now[each] != before[each]}
        end = time.monotonic() + 5
        while sum(grown().values()) < len(datagrams) and time.monotonic() < end:
            time.sleep(0.02)
        if name is not None:
            self.assertEqual(grown(), {name: len(datagrams)})
        else:
            self.assertEqual(sum(grown().values()), len(datagrams), grown())
        return grown()

    def assert_no_answer(self):
        from_server = self.back.packets(
            lambda packet: packet[0] >> 4 == 4 and addresses(packet)[0] == SERVER)
        self.assertEqual([packet.hex() for packet in from_server], [])

    def outer_of(self, action):
        """The datagrams that the client sends to the server during an action."""
        with Tap(self.tunnel.server_ns, "switch") as tap:
            action()
            time.sleep(0.05)
            mine = tap.packets(lambda packet: packet[0] >> 4 == 4 and
                               addresses(packet)[0] == "10.20.1.1")
            return udp_payloads(mine, 7700)

    @each(io=("io_uring", "epoll"))
    def test_each_is_counted_under_its_name(self, io):
        tunnel = self.start(both={"performance": {"io": io}}).start()
        body = bytes(40)
        log = len(tunnel.server.log())
        self.counted([b"\xb7\xa1\x01\x04" + bytes(length) for length in range(20)],
                     "short_datagram")
        self.counted((b"", b"x", b"\xb7"), "short_datagram")
        self.counted([header() + bytes(length) for length in range(16)], "short_datagram")
        self.counted([header(magic=magic) + body for magic in (0, 0xB7A0, 0xA1B7, 0xFFFF)],
                     "bad_magic")
        self.counted([header(version=version) + body for version in (0, 2, 255)], "bad_version")
        self.counted([header(kind=kind) + body for kind in (0, 7, 8, 255)], "bad_kind")
        self.counted([header(flags=flag) + body for flag in (4, 8, 16, 32, 64, 128, 255)],
                     "bad_flags")
        self.counted([header(kind=kind, session=random.getrandbits(32), lane=lane) + body
                      for kind in (DATA, CONTROL, PARITY) for lane in range(20)],
                     "unknown_session")
        self.counted([header(kind=1, lane=SLOW_LANE) + os.urandom(length)
                      for length in (0, 1, 31)], "handshake_malformed")
        self.counted([header(kind=1, lane=SLOW_LANE) + os.urandom(length)
                      for length in (500, 1400)])
        self.counted([header(kind=kind, lane=3) + os.urandom(200) for kind in (1, 2, 3)],
                     "handshake_malformed")
        self.assert_no_answer()
        self.assertEqual(tunnel.server.log()[log:], "")

    def test_random_bytes(self):
        tunnel = self.start().start()
        noise = random.Random(1)
        log = len(tunnel.server.log())
        self.counted([noise.randbytes(noise.randrange(1472)) for _ in range(5000)])
        # As if by someone who knows how a datagram begins.
        self.counted([b"\xb7\xa1\x01" + noise.randbytes(noise.randrange(1469))
                      for _ in range(3000)])
        self.counted([header(kind=kind, lane=SLOW_LANE) + noise.randbytes(noise.randrange(300))
                      for _ in range(1000) for kind in (1, 2, 3)])
        self.assert_no_answer()
        self.assertEqual(tunnel.server.log()[log:], "")
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_memory_stays_flat_and_traffic_flows_under_a_flood(self):
        tunnel = self.start().start()
        self.counted([header(session=number) + bytes(40) for number in range(1000)])
        before = tunnel.server.process.resident_bytes()
        end = time.monotonic() + 3
        noise = [b"\xb7\xa1\x01" + os.urandom(200) for _ in range(200)]
        noise += [header(kind=1, lane=SLOW_LANE) + os.urandom(180) for _ in range(200)]
        pings = Pinger(tunnel.client_ns, INNER[4][1])
        while time.monotonic() < end:
            for datagram in noise:
                self.socket.sendto(datagram, (SERVER, 7700))
        result = pings.stop()
        self.assertGreater(result.received, result.sent * 0.9)
        self.assertLess(tunnel.server.process.resident_bytes() - before, 2 << 20)
        self.assert_no_answer()

    @each(lane=(1, SLOW_LANE))
    def test_what_a_sockets_queue_had_no_room_for_is_counted(self, lane):
        sent = 30000  # of which the queue holds a part
        server = self.start(both={"performance": {"workers": 2}}).server.start()
        before = server.drops()
        self.assertEqual(before["socket_queue_full"], 0)
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(sent):
                self.socket.sendto(header(magic=0, lane=lane) + bytes(40), (SERVER, 7700))
        finally:
            server.process.send_signal(signal.SIGCONT)
        eventually(lambda: sum(server.drops().values()) == sum(before.values()) + sent, 5,
                   "each is counted")
        drops = server.drops()
        dropped = drops["socket_queue_full"]
        self.assertGreater(dropped, 0)
        self.assertEqual(dropped, udp_drops(server.ns))
        self.assertEqual(drops["bad_magic"] - before["bad_magic"], sent - dropped)
        self.assertRegex(server.shown_status(), rf"socket_queue_full +{dropped:,}\n")

    def test_replayed_datagrams_have_no_effect(self):
        tunnel = self.start().start()
        captured = self.outer_of(lambda: ping(tunnel.client_ns, INNER[4][1], count=20,
                                              interval=0.01))
        data = [datagram for datagram in captured if datagram[8] != SLOW_LANE]
        self.assertGreaterEqual(len(data), 20)
        remote = tunnel.server.path()["remote"]
        received = tunnel.server.peer()["rx_bytes"]
        with Tap(tunnel.server_ns, "braid0") as tap:
            self.counted(data * 3, "replayed")
            self.assertEqual([p for p in tap.packets() if addresses(p)[0] == INNER[4][0]], [])
        self.assertEqual(tunnel.server.path()["remote"], remote)
        self.assertEqual(tunnel.server.peer()["rx_bytes"], received)
        self.assert_no_answer()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_a_replayed_handshake_has_no_effect(self):
        tunnel = self.start()
        tunnel.server.start()

        def connect():
            tunnel.client.start()
            tunnel.wait()
        first = [each for each in self.outer_of(connect) if each[3] == 1]
        self.assertGreaterEqual(len(first), 1)
        session = self.session_at_server()
        self.counted(first[-1:] * 20, "handshake_replayed")
        self.assertEqual(self.session_at_server(), session)
        self.assert_no_answer()
        # Also to a server that has forgotten everything but what it wrote down.
        tunnel.server.kill()
        self.assertEqual(tunnel.client.stop(), [])
        tunnel.server.start()
        self.send(first)
        time.sleep(0.3)
        self.assertFalse(tunnel.server.is_established())

    def session_at_server(self):
        """The index in what the client sends now."""
        captured = self.outer_of(lambda: ping(self.tunnel.client_ns, INNER[4][1], count=1))
        return {datagram[4:8] for datagram in captured if datagram[3] == DATA}

    def test_forgeries_from_what_was_captured(self):
        tunnel = self.start().start()
        captured = self.outer_of(lambda: ping(tunnel.client_ns, INNER[4][1], count=2))
        seen = next(each for each in captured if each[3] == DATA)
        remote = tunnel.server.path()["remote"]
        newer = patched(seen, 16, (int.from_bytes(seen[16:24], "big") + 100).to_bytes(8, "big"))
        self.counted([patched(newer, 23, bytes([each])) for each in range(200, 250)], "unauthentic")
        self.counted([patched(newer, 8, bytes([each])) for each in (16, 17, 100, 254)], "bad_lane")
        self.counted([patched(newer, 10, bytes([each])) for each in (100, 128, 200)], "bad_epoch")
        self.counted([patched(newer, 9, bytes([each])) for each in (1, 8, 63, 64, 255)])
        self.counted([newer[:length] for length in range(40, len(newer))], "unauthentic")
        self.counted([newer + bytes(length) for length in range(1, 100)], "unauthentic")
        self.assertEqual(tunnel.server.path()["remote"], remote)
        self.assert_no_answer()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def test_every_bit_flip_and_every_length_of_every_kind(self):
        tunnel = self.start()
        tunnel.server.start()

        def connect():
            tunnel.client.start()
            tunnel.wait()
            ping(tunnel.client_ns, INNER[4][1], count=2, size=1)
        captured = self.outer_of(connect)
        response = self.response()
        chosen = {datagram[3]: datagram for datagram in captured if len(datagram) < 400}
        self.assertIn(1, chosen)
        self.assertIn(DATA, chosen)
        chosen[2] = response
        for kind, datagram in sorted(chosen.items()):
            with self.subTest(kind=kind):
                flipped = [patched(datagram, bit // 8, bytes([datagram[bit // 8] ^ 1 << bit % 8]))
                           for bit in range(8 * len(datagram))]
                self.counted(flipped)
                self.counted([datagram[:length] for length in range(len(datagram))])
        self.assert_no_answer()
        self.assertEqual(ping(tunnel.client_ns, INNER[4][1]).received, 3)

    def response(self):
        """One of the shape of a response; the server waits for none."""
        return header(kind=2, session=77, lane=SLOW_LANE) + os.urandom(32 + 48 + 32)

    def test_a_stranger_with_keys_of_his_own_gets_no_answer(self):
        tunnel = self.start()
        tunnel.server.start()
        unknown = Identity(self.lab, "unknown")
        guest = Daemon(self.stranger, "guest", client_config(unknown, tunnel.hub, SERVER, 9))
        guest.start()
        eventually(lambda: tunnel.server.drops()["handshake_unknown_peer"] >= 1, 5, "it is counted")
        self.assertFalse(guest.is_established())
        self.assert_no_answer()

    def test_who_does_not_know_the_servers_key_gets_no_answer(self):
        tunnel = self.start()
        tunnel.server.start()
        tunnel.client.config["tunnel"]["peers"][0]["public_key"] = tunnel.branch.public
        with Tap(tunnel.client_ns, "switch") as tap:
            tunnel.client.start()
            eventually(lambda: tunnel.server.drops()["handshake_bad_mac"] >= 1, 5, "it is counted")
            self.assertEqual([p for p in tap.packets() if p[0] >> 4 == 4 and
                              addresses(p)[0] == SERVER], [])
